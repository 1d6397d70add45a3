"""`cnnjepa export`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cnnjepa.cli.options import at_home

EXAMPLE = "Example:  cnnjepa export runs/demo-seed0 --to onnx"


def export(
    run: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN", callback=at_home)],
    to: Annotated[
        Literal["torchvision", "timm", "safetensors", "onnx", "torch-export", "huggingface", "transformers"],
        typer.Option("--to", help="Format to write."),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder; RUN/export/FORMAT by default.", metavar="DIR", callback=at_home),
    ] = None,
    encoder: Annotated[
        Literal["target", "context"] | None,
        typer.Option("--encoder", help="Encoder to export; the probed one by default."),
    ] = None,
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", help="File in RUN/checkpoints/.", metavar="NAME")
    ] = "last.pt",
    data_licence: Annotated[
        str | None,
        typer.Option("--data-licence", help="Licence of the images, for the model card.", metavar="TEXT"),
    ] = None,
) -> None:
    """Export a run's encoder to another library's format, with a model card: config, data and its licence, accuracies.

    The other library loads the files back, and its features must equal the run's (relative error at most 1e-5).
    """
    from cnnjepa.cli.terminal import console, say
    from cnnjepa.commands import quoted
    from cnnjepa.places import refuse_no_run

    refuse_no_run(run, checkpoint)
    from cnnjepa.export import export_run

    folder, error = export_run(run, to, out, encoder, checkpoint, data_licence)
    say(console(), f"features loaded back with {to}: relative error {error:.1e}")
    say(console(), f"Look:  {quoted(folder / 'README.md')}")
