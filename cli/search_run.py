"""A search from the command line: checks, progress and results."""

import sys
import uuid
from pathlib import Path

from rich.console import Console

from cnnjepa.ablations.pool import Pool
from cnnjepa.ablations.resources import Capacity, Resources, resources_per_trial, this_machine
from cnnjepa.ablations.search.record import (
    claim,
    folder_id,
    record_of,
    refuse_other_owner,
    refuse_other_search,
)
from cnnjepa.ablations.study_folder import StudyFolder
from cnnjepa.cli.search_view import Course, show
from cnnjepa.cli.study_options import ClusterOptions
from cnnjepa.cli.terminal import console, say
from cnnjepa.commands import command, quoted
from cnnjepa.schemas import ConfigError, PretrainConfig
from cnnjepa.schemas.numbers import counted
from cnnjepa.schemas.space import SearchSpace
from cnnjepa.schemas.yaml_text import write_yaml
from cnnjepa.storage.atomic_files import write_atomically
from cnnjepa.storage.locks import locked
from cnnjepa.training.stopping import StopRequest


def run(space: SearchSpace, options: ClusterOptions, data: Path | None, trials: int, url: str | None) -> int:
    """Run the search, show its results, and return the exit code."""
    from cnnjepa.ablations.data_facts import Resolver
    from cnnjepa.ablations.ray_cluster import ray_at
    from cnnjepa.ablations.search.findings import draw, write_best, write_trials
    from cnnjepa.ablations.search.objective import objective_of, refuse_unknown_metric
    from cnnjepa.ablations.search.place import place_of
    from cnnjepa.ablations.search.points import check_search, loss_warning
    from cnnjepa.ablations.search.settled_points import exhausted
    from cnnjepa.ablations.search.storage import open_study, storage_at, storage_errors, tried

    progress = console(stderr=True)
    config = check_search(space, data)
    folder = StudyFolder(options.root, space.name)
    if folder.begun and not folder.searched:
        raise ConfigError(f"{folder.path} holds a study; give this search another --name")
    place = place_of(url, folder.path)
    resolver = Resolver("cpu", 1)
    images = resolver.facts(config)
    objective = objective_of(space)
    if objective.needs_labels and not images.size.classes and not config.probe.data:
        accuracy = space.objective in ("knn", "linear")
        what, lack = ("is an accuracy", "no labels") if accuracy else ("needs labels", "none")
        raise ConfigError(
            f"--objective {space.objective} {what}, and {images.name} has {lack}; give labels with data.labels "
            "(folders or a table), judge trials on a labelled set with --probe-data PATH, or optimise rankme, lidar, "
            "alpha_req or loss, which need no labels"
        )
    refuse_unknown_metric(space, config)
    asked = record_of(space, resolver.with_probe_sets(config), images, options.workers_per_trial)
    if trials < len(space.first):
        raise ConfigError(f"--trials {trials} is fewer than the {len(space.first)} points of `first`")
    trials = of_the_space(progress, space, trials, data)

    def warned(text: str) -> None:
        say(progress, f"warning: {text}")

    if warning := loss_warning(space):
        warned(warning)
    with locked(folder.path), storage_errors(place):
        refuse_other_search(folder, asked)
        done, storage, machines_fail = 0, None, False
        if place.exists:  # otherwise nothing is created before the machines are known to fit a trial
            storage = storage_at(place, warned)
            refuse_other_owner(storage, place.shown, folder, asked)
            study = open_study(space, storage, Pool(options.root))
            done = len(tried(study))
        say(progress, (str(folder.path), "bold"), f"  {done} of {counted(trials, 'trial')} done before")
        with StopRequest() as stop:
            if done < trials and not (storage and exhausted(study, space)):
                stop_file = folder.path / f"stop-{uuid.uuid4().hex}"
                if options.address is None:
                    fitting(this_machine(), options, config)  # a refusal need not wait for Ray
                with ray_at(options.address) as capacity:
                    # Ray is imported only here, after `ray_at` has set its environment.
                    from cnnjepa.ablations.search.run import run_search
                    from cnnjepa.ablations.search.trial_actor import SearchTask

                    resources = fitting(capacity, options, config)
                    task = SearchTask(
                        space.model_dump_json(), None if data is None else str(data.resolve()),
                        str(options.root.resolve()), resources, str(stop_file.resolve()),
                    )  # fmt: skip
                    asked["id"] = folder_id(folder)
                    write_atomically(folder.path / "search.yaml", write_yaml(asked).encode())
                    storage = storage or storage_at(place, warned)
                    claim(storage, place.shown, folder, asked)
                    try:
                        study, machines_fail = run_search(
                            space, task, capacity, storage, trials, stop_file, lambda: stop.reason is not None,
                            Course(progress, done, trials, objective),
                        )  # fmt: skip
                    finally:
                        stop_file.unlink(missing_ok=True)
            table = write_trials(study, space, folder)
            best = write_best(study, space, folder.path, data)
            pictures = draw(study, folder.path)
            stopped = stop.reason
    show(study, space)
    look = [quoted(path) for path in [*([best] if best else []), table, *pictures]]
    if not url:
        look.append(command("optuna-dashboard", place.url))
    say(console(), f"Look:  {'  '.join(look)}")
    points = exhausted(study, space)
    if points:
        say(console(), f"{points} of {points} points of the space tried: there is nothing left to try")
    left = 0 if points else trials - len(tried(study))
    if stopped and left:
        print(f"cnnjepa: stopped ({stopped}); the same command resumes the search", file=sys.stderr)
        return 75
    if left:
        why = (
            "the processes of several trials in a row died, so the machines may be at fault"
            if machines_fail
            else (f"{left} trial(s) were lost")
        )
        print(f"cnnjepa: {why}; their logs are in {folder.logs}; the same command resumes the search", file=sys.stderr)
    return 0 if best and not left else 1


def fitting(capacity: Capacity, options: ClusterOptions, config: PretrainConfig) -> Resources:
    """Return the resources of a trial. Raises ConfigError if no trial fits, which would wait forever."""
    resources = resources_per_trial(
        capacity, options.workers_per_trial, options.gpus_per_trial, options.cpus_per_trial,
        on_cpu=config.runtime.device == "cpu", side_by_side=True,
    )  # fmt: skip
    capacity.trials(resources)
    return resources


def of_the_space(progress: Console, space: SearchSpace, trials: int, data: Path | None) -> int:
    """Return the number of trials that can be run: a finite space has no more than its points. Print what this limit or
    a grid leaves out."""
    from cnnjepa.ablations.search.points import refusal_of
    from cnnjepa.ablations.search.storage import choices_of, space_points, space_size

    size = space_size(space)
    if size is None:
        return trials
    if space.sampler != "grid":
        if trials > size:
            say(progress, f"the space has {counted(size, 'point')}: {counted(size, 'trial')}, not {trials} (--trials)")
        return min(trials, size)
    points = [choices_of(point, space) for point in space_points(space)]
    refusals = [refusal for point in points if (refusal := refusal_of(point, space, data))]
    if refusals:
        say(
            progress,
            f"warning: {len(refusals)} of {len(points)} combinations are no configs and will be refused; the first: "
            f"{refusals[0].splitlines()[0]}. Settings that belong together can be named arms (docs/studies.md)",
        )
    if trials < size:
        say(progress, f"a part of the grid: {trials} of {size} combinations (--trials)")
    return min(trials, size)
