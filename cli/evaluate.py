"""`cnnjepa evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from cnnjepa.cli.encoder_options import (
    ChannelsOption,
    CheckpointOption,
    DeviceOption,
    ImageSizeOption,
    MeanOption,
    StdOption,
    WhichOption,
    WorkersOption,
    preprocessing_overrides,
)
from cnnjepa.cli.options import RootOption, at_home

EXAMPLE = "Example:  cnnjepa evaluate runs/demo-seed0 random:demo --tasks lowshot,retrieve"


def evaluate(
    encoders: Annotated[
        list[str],
        typer.Argument(
            help="Encoders: a run folder or its hash, an exported folder or file, torchvision:NAME[:WEIGHTS], "
            "timm:NAME[:pretrained], random:PRESET, or module:Class of your own. The others are compared with the "
            "first.",
            metavar="ENCODER ...",
            callback=at_home,
        ),
    ],
    on: Annotated[
        list[str] | None,
        typer.Option(
            "--on",
            help="Images to evaluate on, as for --data, or the word 'embedded'. Repeatable. The images of the first "
            "run by default.",
            metavar="SET",
            callback=at_home,
        ),
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            "--tasks",
            help="Tasks with commas between them; by default all that the labels allow and that are quick. "
            "docs/evaluate.md describes them.",
            metavar="LIST",
        ),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Set a field of a task, lowshot.draws=20, or of the images, data.labels=FILE. Repeatable.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    encoder: WhichOption = None,
    checkpoint: CheckpointOption = "last.pt",
    image_size: ImageSizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    channels: ChannelsOption = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    plan: Annotated[bool, typer.Option("--plan", help="List the tasks and what is done already; run nothing.")] = False,
    root: RootOption = Path(),
) -> None:
    """Evaluate encoders on tasks: linear and k-NN classification, few labels, retrieval and more.

    Every task gives its figures with 95 % intervals. With several encoders, each is compared with the first, paired
    over the same images or the same draws of labels.

    Results are files of their own, evaluations/TASK-SET-HASH.json in the run or exported folder, and in
    encoders/NAME/ below the root for other encoders. They are added, never replaced. A task that was done before is not
    run again; a stopped one is run again from its start.

    `--set TASK.FIELD=VALUE` changes a task, `--set data.FIELD=VALUE` how the images are read.
    """
    from cnnjepa.references.request import encoder_request
    from cnnjepa.schemas.errors import ConfigError
    from cnnjepa.schemas.evaluation import requested_tasks, usual_tasks

    overrides = preprocessing_overrides(image_size, mean, std, channels)
    data_sets = [flag for flag in sets or [] if flag.startswith("data.")]
    task_sets = [flag for flag in sets or [] if not flag.startswith("data.")]
    asked = None if tasks is None else [name.strip() for name in tasks.split(",")]
    if asked is not None and "" in asked:
        raise ConfigError(f"--tasks {tasks!r}: a name is missing; write names with commas between them")
    sections = requested_tasks(asked if asked is not None else usual_tasks(), task_sets)
    for place in on or []:
        if place != "embedded" and not Path(place).exists():
            raise ConfigError(f"--on {place} does not exist; give the path of a set, or the word embedded")
    for reference in encoders:  # a wrong name is refused before torch is imported
        encoder_request(reference, root)

    from cnnjepa.cli.evaluation_table import plan_sheet, print_results
    from cnnjepa.cli.terminal import console, say
    from cnnjepa.evaluation.run import planned_tasks, run_tasks
    from cnnjepa.references.open import open_encoder
    from cnnjepa.training.distributed import pick_device
    from cnnjepa.training.stopping import StopRequest

    on_device = pick_device(device)
    opened = [
        open_encoder(name, root=root, which=encoder, checkpoint=checkpoint, overrides=overrides) for name in encoders
    ]
    planned = planned_tasks(opened, on or [], sections, asked, root, data_sets)
    if plan:
        console().print(plan_sheet(planned))
        return
    progress = console(stderr=True)
    with StopRequest() as stop:
        done = list(run_tasks(planned, on_device, stop.tick, lambda text: say(progress, f"{text} …"), workers))
    print_results(done)
