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
    method: Annotated[
        str | None,
        typer.Option("--method", help="Only check a method: one of ours or your own.", metavar="NAME"),
    ] = None,
) -> None:
    """Check this machine for a config (the demo's by default): versions, devices, whether the packed encoder is
    right and fast here, how many images/s data and model reach, and which is the bottleneck.

    With --encoder: whether that network can be packed, or which layer cannot and why (docs/own_encoder.md).

    With --method: whether gradients reach the encoder, whether the terms are the loss's weight, whether a resumed run
    repeats the same numbers, and whether two processes learn what one does (docs/extend_method.md); on random images,
    with the smoke preset's settings by default.

    Exit code 1 when something is wrong.
    """
    if method is not None:
        sets = [*(sets or []), f"method.name={method}"]
    asked = asked_config(preset, config, sets, data, default="demo" if method is None else "smoke")
    from cnnjepa.places import refuse_missing_images

    refuse_missing_images(asked.data)
    from cnnjepa.cli.terminal import console, say
    from cnnjepa.measuring.doctor import examine, examine_encoder
    from cnnjepa.measuring.method_check import examine_method

    out = console()
    wrong = 0
    judged = examine_encoder(encoder) if encoder else examine_method(asked) if method else examine(asked)
    for finding in judged:
        mark, style = {True: ("ok  ", "green"), False: ("bad ", "red"), None: ("    ", "")}[finding.ok]
        say(out, (mark, style), f" {finding.name:<34} {finding.value}")
        wrong += finding.ok is False
    if wrong:
        raise typer.Exit(1)
