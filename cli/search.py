"""`cnnjepa search`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cnnjepa.cli.options import DataOption, SetOption, at_home, one_place
from cnnjepa.cli.study_options import ClusterOptions, taking

EXAMPLE = "Example:  cnnjepa search --preset smoke --space 'optimizer.lr=log(1e-4, 1e-1)' --trials 8"


@taking(ClusterOptions)
def search(
    options: ClusterOptions,
    file: Annotated[
        Path | None,
        typer.Argument(help="A YAML file with the search (docs/studies.md).", metavar="SPACE.yaml", callback=at_home),
    ] = None,
    space: Annotated[
        list[str] | None,
        typer.Option("--space", help="A setting: PATH=log(LOW, HIGH), uniform, int or choice(A, B).", metavar="RANGE"),
    ] = None,
    preset: Annotated[str | None, typer.Option("--preset", help="The base config.", metavar="NAME")] = None,
    sets: SetOption = None,
    data: DataOption = None,
    trials: Annotated[
        int, typer.Option("--trials", help="Trials in all, earlier ones and those given up included.", min=1)
    ] = 20,
    objective: Annotated[
        Literal["knn", "linear"] | None, typer.Option("--objective", help="Held-out figure to make large.")
    ] = None,
    sampler: Annotated[
        Literal["tpe", "random", "grid"] | None, typer.Option("--sampler", help="How settings are proposed.")
    ] = None,
    prune: Annotated[
        bool | None, typer.Option("--prune/--no-prune", help="Give up trials that are behind (ASHA).")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option("--storage", help="A database URL or journal:FILE; SQLite in the study's folder otherwise."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Folder below studies/.", metavar="NAME")] = None,
) -> None:
    """Search for settings: Optuna proposes them, Ray Tune runs them, a probe on held-out training images judges them.

    Every trial is a run in the pool and can be resumed with `train --resume`. The same command resumes a stopped
    search. Exit codes: 0 done, 1 no trial finished, 2 invalid request, 75 stopped.
    """
    from cnnjepa.ablations.search.points import check_search
    from cnnjepa.cli.search_space import asked_space
    from cnnjepa.places import refuse_missing_images

    flags: dict[str, Any] = {"preset": preset, "objective": objective, "sampler": sampler, "prune": prune, "name": name}
    asked = asked_space(
        file, space or [], sets or [], {key: value for key, value in flags.items() if value is not None}
    )
    images = one_place(data)
    refuse_missing_images(check_search(asked, images).data)
    from cnnjepa.cli.search_run import run

    raise typer.Exit(run(asked, options, images, trials, storage))
