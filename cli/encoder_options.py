"""Options of commands that take an encoder of any origin."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cnnjepa.cli.options import at_home

if TYPE_CHECKING:
    from cnnjepa.references.preprocessing import PreprocessingOverrides

EncoderArgument = Annotated[
    str,
    typer.Argument(
        help="A run folder, a run's hash or its beginning, an exported folder or file, torchvision:NAME[:WEIGHTS], "
        "timm:NAME (untrained) or timm:NAME:pretrained, random:PRESET[:SEED] (untrained), or package.module:Class of "
        "your own.",
        metavar="ENCODER",
    ),
]
WhichOption = Annotated[
    Literal["target", "context"] | None,
    typer.Option("--encoder", help="Encoder of a run; the probed one by default."),
]
CheckpointOption = Annotated[
    str, typer.Option("--checkpoint", help="File in RUN/checkpoints/, for a run.", metavar="NAME")
]
DeviceOption = Annotated[
    Literal["auto", "cpu", "cuda"], typer.Option("--device", help="Device; by default a GPU if there is one.")
]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", help="Processes that read images; by default 0 on a CPU, 4 on a GPU.", min=0),
]
ImageSizeOption = Annotated[
    str | None,
    typer.Option("--image-size", help="Size of the inputs in pixels; the encoder's own by default.", metavar="N|HxW"),
]
MeanOption = Annotated[
    str | None,
    typer.Option("--mean", help="Mean per channel of pixels mapped to 0..1: 0.485,0.456,0.406.", metavar="LIST"),
]
StdOption = Annotated[
    str | None, typer.Option("--std", help="Standard deviation per channel, as for --mean.", metavar="LIST")
]
ChannelsOption = Annotated[
    int | None, typer.Option("--channels", help="Channels of the images, 3 by default.", min=1, max=64)
]
EncoderRootOption = Annotated[
    Path,
    typer.Option("--root", help="Folder of runs/by_hash, where hashes are looked up.", metavar="DIR", callback=at_home),
]


def preprocessing_overrides(
    image_size: str | None, mean: str | None, std: str | None, channels: int | None
) -> "PreprocessingOverrides":
    """Return what the options state about an encoder's inputs. Raises ConfigError."""
    from cnnjepa.references.preprocessing import PreprocessingOverrides

    return PreprocessingOverrides.parsed(image_size, mean, std, channels)
