"""The command line, with one thin module per command. Heavy imports are inside the commands."""
