"""`python -m cnnjepa`, and what torchrun starts."""

from cnnjepa.cli.main import main

main()
