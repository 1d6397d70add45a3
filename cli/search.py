"""`cnnjepa search`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cnnjepa.cli.options import DataOption, ProbeDataOption, SetOption, at_home, probe_data_sets, refuse_missing
from cnnjepa.cli.study_options import ClusterOptions, taking

EXAMPLE = "Example:  cnnjepa search --preset smoke --space 'optimizer.lr=log(1e-4, 1e-1)' --trials 8"


@taking(ClusterOptions)
def search(
    options: ClusterOptions,
    file: Annotated[
        Path | None,
        typer.Argument(
            help="A YAML file that describes the search (docs/studies.md).", metavar="SPACE.yaml", callback=at_home
        ),
    ] = None,
    space: Annotated[
        list[str] | None,
        typer.Option(
            "--space",
            help="A field and its range: FIELD=log(LOW, HIGH), uniform(…), int(…), choice(A, B). Repeatable.",
            metavar="RANGE",
        ),
    ] = None,
    preset: Annotated[str | None, typer.Option("--preset", help="The base config.", metavar="NAME")] = None,
    sets: SetOption = None,
    data: DataOption = None,
    probe_data: ProbeDataOption = None,
    trials: Annotated[
        int, typer.Option("--trials", help="Total number of trials, including earlier and pruned ones.", min=1)
    ] = 20,
    objective: Annotated[
        str | None,
        typer.Option(
            "--objective",
            help="The figure to optimise: the accuracies knn (default) and linear; without labels rankme, lidar, "
            "alpha_req and loss; metric:NAME for a figure of probe.metrics.",
            metavar="FIGURE",
        ),
    ] = None,
    sampler: Annotated[
        Literal["tpe", "random", "grid"] | None, typer.Option("--sampler", help="Optuna's sampler.")
    ] = None,
    prune: Annotated[
        bool | None, typer.Option("--prune/--no-prune", help="Stop trials early that are worse than others (ASHA).")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option("--storage", help="A database URL or journal:FILE; by default SQLite in the study's folder."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Folder below studies/.", metavar="NAME")] = None,
) -> None:
    """Search for good settings: Optuna proposes them, Ray Tune trains them, and a probe on held-out training images
    evaluates them.

    Every trial is a run, which `train --resume` can resume. The same command resumes a stopped search. Exit codes:
    0 done, 1 no trial finished, 2 invalid request, 75 stopped.
    """
    refuse_missing(data, preset, sets, file)
    from cnnjepa.ablations.search.points import check_search
    from cnnjepa.cli.search_space import requested_space
    from cnnjepa.places import refuse_missing_images
    from cnnjepa.schemas.load import refuse_two_places
    from cnnjepa.schemas.overrides import parse_overrides

    flags: dict[str, Any] = {"preset": preset, "objective": objective, "sampler": sampler, "prune": prune, "name": name}
    asked = requested_space(
        file,
        space or [],
        [*(sets or []), *probe_data_sets(probe_data)],
        {key: value for key, value in flags.items() if value is not None},
    )
    if data is not None:
        refuse_two_places(data, dict(parse_overrides(sets or [])))
    refuse_missing_images(check_search(asked, data).data)
    from cnnjepa.cli.search_run import run

    raise typer.Exit(run(asked, options, data, trials, storage))
