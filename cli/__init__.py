"""How a person asks. One thin module a command; heavy imports inside the commands."""
