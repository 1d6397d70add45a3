"""`cnnjepa doctor`."""

from collections.abc import Iterator
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
    augmentation: Annotated[
        str | None,
        typer.Option("--augmentation", help="Only check an augmentation: one of ours or your own.", metavar="NAME"),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option("--metric", help="Only check a probe metric: one of ours or your own.", metavar="NAME"),
    ] = None,
) -> None:
    """Check this machine for a config (the demo's by default): versions, devices, whether the packed encoder is
    right and fast here, how many images/s data and model reach, and which is the bottleneck.

    With --encoder: whether that network can be packed, or which layer cannot and why (docs/own_encoder.md).

    With --method: whether gradients reach the encoder, whether the terms are the loss's weight, whether a resumed run
    repeats the same numbers, and whether two processes learn what one does (docs/extend_method.md); on random images,
    with the smoke preset's settings by default.

    With --augmentation: whether its pixels have the right form, are the same in two calls, and belong to each image
    alone (docs/extend_augmentation.md). With --metric: its figures on random features, and whether two calls give the
    same (docs/extend_metric.md).

    Exit code 1 when something is wrong.
    """
    named = {"--encoder": encoder, "--method": method, "--augmentation": augmentation, "--metric": metric}
    given = [option for option, value in named.items() if value is not None]
    if len(given) > 1:
        from cnnjepa.schemas.errors import ConfigError

        raise ConfigError(f"{' and '.join(given)} are separate checks; give one of them")
    if method is not None:
        sets = [*(sets or []), f"method.name={method}"]
    if augmentation is not None:
        sets = [*(sets or []), f"data.augmentation.name={augmentation}"]
    asked = asked_config(preset, config, sets, data, default="smoke" if method or augmentation or metric else "demo")
    from cnnjepa.places import refuse_missing_images

    refuse_missing_images(asked.data)
    from cnnjepa.cli.terminal import console, say
    from cnnjepa.measuring.doctor import Finding, examine, examine_encoder

    judged: Iterator[Finding]
    if encoder is not None:
        judged = examine_encoder(encoder)
    elif method is not None:
        from cnnjepa.measuring.method_check import examine_method

        judged = examine_method(asked)
    elif augmentation is not None:
        from cnnjepa.data.augmentation_check import check_augmentation

        judged = (Finding(*checked) for checked in check_augmentation(asked.views[0]))
    elif metric is not None:
        from cnnjepa.measuring.metric_check import examine_metric

        judged = examine_metric(metric)
    else:
        judged = examine(asked)
    out = console()
    wrong = 0
    for finding in judged:
        mark, style = {True: ("ok  ", "green"), False: ("bad ", "red"), None: ("    ", "")}[finding.ok]
        say(out, (mark, style), f" {finding.name:<34} {finding.value}")
        wrong += finding.ok is False
    if wrong:
        raise typer.Exit(1)
