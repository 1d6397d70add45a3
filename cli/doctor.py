"""`cnnjepa doctor`."""

from typing import Annotated

import typer

from cnnjepa.cli.options import ConfigOption, DataOption, PresetOption, SetOption, asked_config

EXAMPLE = "Example:  cnnjepa doctor --preset in100 --data /data/imagenet100"


def doctor(
    preset: PresetOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    data: DataOption = None,
    encoder: Annotated[
        str | None,
        typer.Option("--encoder", help="Only judge a network of your own as encoder.", metavar="MODULE:NAME"),
    ] = None,
) -> None:
    """Check this machine for a config (the demo's by default): versions, devices, whether the packed encoder is
    right and fast here, how many images/s data and model reach, and which is the bottleneck.

    With --encoder: whether that network can be packed, or which layer cannot and why (docs/own_encoder.md). Exit code 1
    when something is wrong.
    """
    asked = asked_config(preset, config, sets, data, default="demo")
    from cnnjepa.places import refuse_missing_images

    refuse_missing_images(asked.data)
    from cnnjepa.cli.terminal import console, say
    from cnnjepa.doctor import examine, examine_encoder

    out = console()
    wrong = 0
    for finding in examine_encoder(encoder) if encoder else examine(asked):
        mark, style = {True: ("ok  ", "green"), False: ("bad ", "red"), None: ("    ", "")}[finding.ok]
        say(out, (mark, style), f" {finding.name:<34} {finding.value}")
        wrong += finding.ok is False
    if wrong:
        raise typer.Exit(1)
