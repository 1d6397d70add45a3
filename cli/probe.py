"""`cnnjepa probe`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cnnjepa.cli.options import DataOption, ProbeDataOption, SetOption, at_home, probe_data_sets, refuse_missing

EXAMPLE = "Example:  cnnjepa probe runs/demo-seed0 --encoder context"


def probe(
    run: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN", callback=at_home)],
    data: DataOption = None,
    probe_data: ProbeDataOption = None,
    encoder: Annotated[
        Literal["target", "context"] | None,
        typer.Option("--encoder", help="Encoder to probe; that of the run's config by default."),
    ] = None,
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", help="File in RUN/checkpoints/.", metavar="NAME")
    ] = "last.pt",
    sets: SetOption = None,
) -> None:
    """Probe a run again by linear classifier and k-NN, in both protocols, with the floors.

    Results are added, never replaced. Other probe settings on the last.pt of a finished run give another file in
    RUN/results/, and result.json stays unchanged. All other results are only printed.

    `--data PATH` probes on other images and only prints the result. Image size and normalisation are the run's;
    settings of reading (`data.resident`, `data.val_split`, `data.train_images`, …) can be changed. PATH may also be
    the place to which the run's own images were moved.

    `--probe-data PATH` probes the encoder on labelled sets; that result is added.
    """
    from cnnjepa.places import refuse_missing_images, refuse_no_run

    refuse_no_run(run, checkpoint)
    refuse_missing(data, None, sets)
    from cnnjepa.schemas import load_config

    if data is not None:
        refuse_missing_images(load_config("smoke", data=data).data)
    from cnnjepa.cli.summary import print_summary
    from cnnjepa.cli.terminal import console, say
    from cnnjepa.training.reprobe import reprobe

    progress = console(stderr=True)
    sets = [*(sets or []), *([f"probe.encoder={encoder}"] if encoder else [])]
    sets += probe_data_sets(probe_data)
    probed = reprobe(run, checkpoint, sets, data, lambda text: say(progress, f"{text} …"))
    print_summary(probed.result, run)
    print(probed.note)
    raise typer.Exit(3 if probed.result.status == "collapsed" else 0)
