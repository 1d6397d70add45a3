"""Costs of training and checks of the machine: counts, timings, the doctor."""
