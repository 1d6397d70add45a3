"""`cnnjepa masks`."""

from pathlib import Path
from typing import Annotated

import typer

from cnnjepa.cli.options import (
    ConfigOption,
    DataOption,
    PresetOption,
    SetOption,
    at_home,
    refuse_missing,
    requested_config,
)

EXAMPLE = "Example:  cnnjepa masks --preset in100 --out masks.png"


def masks(
    out: Annotated[
        Path, typer.Option("--out", help="Picture to write: .png, .svg or .pdf.", metavar="FILE", callback=at_home)
    ],
    preset: PresetOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    data: DataOption = None,
    batches: Annotated[
        int, typer.Option("--batches", help="Number of batches over which the maps are counted.", min=1)
    ] = 2000,
) -> None:
    """Draw a config's masks: examples on images, and how often each cell is context and target.

    Without --data, the images are synthetic.
    """
    refuse_missing(data, preset, sets, config)
    asked = requested_config(preset, config, sets, data)
    from cnnjepa.places import refuse_missing_images
    from cnnjepa.schemas import ConfigError

    refuse_missing_images(asked.data)
    if not out.parent.is_dir():
        raise ConfigError(f"--out {out}: the folder {out.parent} does not exist; make it first")
    if out.suffix not in (".png", ".svg", ".pdf"):
        raise ConfigError(f"--out {out}: the ending must be .png, .svg or .pdf")
    from cnnjepa.ablations.report.figures.mask_samples import draw_picture
    from cnnjepa.cli.terminal import console, say
    from cnnjepa.commands import quoted

    facts = draw_picture(asked, out, batches)
    for name, value in facts.items():
        say(console(), f"{name}: {value}")
    say(console(), f"Look:  {quoted(out)}")
