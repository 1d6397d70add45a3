"""`cnnjepa doctor`."""

from collections.abc import Iterator
from typing import Annotated

import typer

from cnnjepa.cli.options import ConfigOption, DataOption, PresetOption, SetOption, refuse_missing, requested_config

EXAMPLE = "Example:  cnnjepa doctor --preset in100 --data /data/imagenet100"


def doctor(
    preset: PresetOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    data: DataOption = None,
    encoder: Annotated[
        str | None,
        typer.Option("--encoder", help="Check only this network as an encoder.", metavar="MODULE:NAME"),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option("--method", help="Check only this method: a built-in one or MODULE:CLASS.", metavar="NAME"),
    ] = None,
    augmentation: Annotated[
        str | None,
        typer.Option(
            "--augmentation", help="Check only this augmentation: a built-in one or MODULE:CLASS.", metavar="NAME"
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option("--metric", help="Check only this probe metric: a built-in one or MODULE:CLASS.", metavar="NAME"),
    ] = None,
) -> None:
    """Check this machine for a config (the demo's by default): versions, devices, correctness and speed of the packed
    encoder, images/s of data loading and of the model, and which of the two is the bottleneck.

    With --encoder, check whether that network can be packed, and name the layers that cannot (docs/own_encoder.md).

    With --method, check that gradients reach the encoder, that `terms` equals the weight of the loss, that a resumed
    run repeats the same numbers, and that two processes learn the same as one (docs/extend_method.md). Random images
    and, by default, the settings of the preset `smoke` are used.

    With --augmentation, check that its pixels have the right form, are the same in two calls, and depend on one image
    only (docs/extend_augmentation.md). With --metric, print its figures on random features, and check that two calls
    give the same ones, and that it can be computed for raw pixels (docs/extend_metric.md). `--set` sets the fields of
    what is checked.

    The exit code is 1 when a check fails.
    """
    refuse_missing(data, preset, sets, config)
    named = {"--encoder": encoder, "--method": method, "--augmentation": augmentation, "--metric": metric}
    given = [option for option, value in named.items() if value is not None]
    if len(given) > 1:
        from cnnjepa.schemas.errors import ConfigError

        raise ConfigError(f"{' and '.join(given)} are separate checks; give one of them")
    if method is not None:
        sets = [*(sets or []), f"method.name={method}"]
    if augmentation is not None:
        sets = [*(sets or []), f"data.augmentation.name={augmentation}"]
    if metric is not None:
        sets = [f"probe.metrics={metric}", *(sets or [])]
    asked = requested_config(
        preset, config, sets, data, default="smoke" if method or augmentation or metric else "demo"
    )
    from cnnjepa.places import refuse_missing_images

    refuse_missing_images(asked.data)
    from cnnjepa.cli.terminal import console, say
    from cnnjepa.measuring.doctor import Finding, examine, examine_encoder

    judged: Iterator[Finding]
    if encoder is not None:
        judged = examine_encoder(encoder, asked.data.channels)
    elif method is not None:
        from cnnjepa.measuring.method_check import examine_method

        judged = examine_method(asked)
    elif augmentation is not None:
        from cnnjepa.data.augmentation_check import check_augmentation

        judged = (Finding(*checked) for checked in check_augmentation(asked.views[0], asked.data.channels))
    elif metric is not None:
        from cnnjepa.measuring.metric_check import examine_metric

        judged = examine_metric(asked.probe.metrics[0])
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
