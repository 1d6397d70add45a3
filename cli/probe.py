"""`cnnjepa probe`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cnnjepa.cli.options import DataOption, SetOption, at_home, one_place

EXAMPLE = "Example:  cnnjepa probe runs/demo-seed0 --encoder context"


def probe(
    run: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN", callback=at_home)],
    data: DataOption = None,
    encoder: Annotated[
        Literal["target", "context"] | None,
        typer.Option("--encoder", help="Which encoder; the run's choice by default."),
    ] = None,
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", help="File below checkpoints/.", metavar="NAME")
    ] = "last.pt",
    sets: SetOption = None,
) -> None:
    """Probe a run again: linear and k-NN, both protocols, together with the floors.

    Results are added, never replaced: a finished run's last.pt with other probe settings gives a further file below
    RUN/results/, and result.json stays. Any other result is only shown.
    `--data PATH` probes on other images, and the result is only shown. They inherit image size and normalisation from
    the run; settings for reading them (`data.resident`, `data.val_split`, `data.train_images`, …) may be set. PATH may
    also be the new place of the run's own images.
    """
    from cnnjepa.places import refuse_missing_images, refuse_no_run
    from cnnjepa.schemas import load_config

    images = one_place(data)
    refuse_no_run(run, checkpoint)
    if images is not None:
        refuse_missing_images(load_config("smoke", data=images).data)
    from cnnjepa.cli.summary import print_summary
    from cnnjepa.cli.terminal import console, say
    from cnnjepa.training.reprobe import reprobe

    progress = console(stderr=True)
    sets = [*(sets or []), *([f"probe.encoder={encoder}"] if encoder else [])]
    probed = reprobe(run, checkpoint, sets, images, lambda text: say(progress, f"{text} …"))
    print_summary(probed.result, run)
    print(probed.note)
    raise typer.Exit(3 if probed.result.status == "collapsed" else 0)
