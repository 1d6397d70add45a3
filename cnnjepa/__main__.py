"""The entry point of `python -m cnnjepa` and of processes that torchrun starts."""

from cnnjepa.cli.main import main

main()
