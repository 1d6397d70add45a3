"""`cnnjepa benchmark`: a comparison of methods."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from cnnjepa.cli.options import at_home, listed
from cnnjepa.cli.study_options import StudyOptions, taking

EXAMPLE = "Example:  cnnjepa benchmark --preset demo --methods cnnjepa,byol,random_init"

# Presets without --preset: the embedded images, and the paper's networks for --cost.
_DEFAULT_PRESET, _DEFAULT_COST_PRESET = "demo", "in100"


@taking(StudyOptions)
def benchmark(
    options: StudyOptions,
    methods: Annotated[
        str | None,
        typer.Option("--methods", help="Methods to compare: cnnjepa,simclr,…; all by default.", metavar="LIST"),
    ] = None,
    equal_time: Annotated[
        Path | None,
        typer.Option(
            "--equal-time",
            help="Train every method for as long as CNN-JEPA, according to this file of --cost.",
            metavar="COSTS.json",
            callback=at_home,
        ),
    ] = None,
    cost: Annotated[
        bool, typer.Option("--cost", help="Only measure training steps on random pixels; train nothing.")
    ] = False,
    batch: Annotated[int, typer.Option("--batch", help="With --cost: images per step.", min=2)] = 16,
    image_size: Annotated[
        int | None,
        typer.Option("--image-size", help="With --cost: side of an image in pixels; the preset's by default.", min=16),
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", help="With --cost: measured steps per method.", min=1)] = 5,
    threads: Annotated[
        int | None, typer.Option("--threads", help="With --cost: CPU threads; all cores by default.", min=1)
    ] = None,
) -> None:
    """Compare CNN-JEPA with other methods on the same images. Each method has its own preset, for example `demo-byol`.

    Every method trains on the same number of images, except supervised training, which leaves out the images that the
    probes hold out. With --equal-time, every method trains for as long as CNN-JEPA. The comparison is a study: it is
    planned, run, resumed and reported like those of `ablate`. `--set` applies to every method.

    With --cost, only training steps are measured, at equal batch and image size: seconds, images/s, FLOPs and peak
    memory, each also as a ratio to CNN-JEPA's. The steps of each method alternate with CNN-JEPA's.

    Exit codes as for `ablate predictor`.
    """
    if cost:
        from cnnjepa.cli.cost_table import measure

        measure(options, listed(methods, "--methods"), batch, image_size, rounds, threads, _DEFAULT_COST_PRESET)
        return
    from cnnjepa.ablations.equal_time import equal_time_epochs
    from cnnjepa.ablations.method_study import method_study, methods_of
    from cnnjepa.cli.ablate import carry_out
    from cnnjepa.places import refuse_missing_images
    from cnnjepa.schemas import load_config
    from cnnjepa.schemas.overrides import parse_overrides

    fixed = dict(parse_overrides(options.sets or []))
    preset, chosen = options.preset or _DEFAULT_PRESET, listed(methods, "--methods")
    base = load_config(preset, data=options.data, changes=fixed)
    refuse_missing_images(base.data)  # before the methods' settings are compared, which takes a second
    epochs = None
    if equal_time is not None:
        epochs = equal_time_epochs(equal_time, preset, map(str, chosen or methods_of(preset)), fixed, options.data)
    study = method_study(preset, chosen, fixed, epochs)
    carry_out(study, dataclasses.replace(options, preset=None))
