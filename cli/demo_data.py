"""`cnnjepa demo-data`."""

from pathlib import Path
from typing import Annotated

import typer

from cnnjepa.cli.options import at_home

EXAMPLE = "Example:  cnnjepa demo-data examples"


def demo_data(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder to write, made if needed.", callback=at_home)
    ],
) -> None:
    """Draw small example sets, 10 MB in all: photographs without labels, X-rays of 16 bits whose classes differ below
    the eighth bit, tiles of 4 channels, and cells with masks. Nothing is downloaded."""
    from cnnjepa.commands import command
    from cnnjepa.data.examples import write_examples

    for name, files in write_examples(folder).items():
        print(f"{folder / name}: {files:,} files")
    print(f"Look at one with: {command('cnnjepa', 'data', 'check', folder / 'xrays')}")
