"""Encoders that start from given weights, and runs that continue another run. Importing this package imports no
torch."""
