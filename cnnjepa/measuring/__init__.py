"""What training costs, and whether it works here: counts, timings and checks."""
