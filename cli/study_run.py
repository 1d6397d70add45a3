"""A study from the command line: an estimate, a live table, and the outcome; or only its plan."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

from rich.console import Console

from cnnjepa.ablations.data_facts import Resolver, SetSize
from cnnjepa.ablations.driver import Executor, distinct, run_study, trained, unfinished
from cnnjepa.ablations.estimate import TrialEstimate, estimates
from cnnjepa.ablations.local_executor import LocalExecutor
from cnnjepa.ablations.plan import RequestedTrial, baseline_arm, plan
from cnnjepa.ablations.pool import Pool
from cnnjepa.ablations.published import published_set
from cnnjepa.ablations.ray_folder import ray_folder
from cnnjepa.ablations.resources import Capacity, Resources, resources_per_trial, this_machine
from cnnjepa.ablations.speed import calibrate
from cnnjepa.ablations.study_folder import StudyFolder, TrialRecord, records_of
from cnnjepa.cli.metric_tables import metrics_of_study
from cnnjepa.cli.study_options import StudyOptions
from cnnjepa.cli.study_tables import (
    failures,
    outcome_notes,
    outcome_table,
    plan_lines,
    plan_table,
    power_line,
    taking_line,
)
from cnnjepa.cli.study_watch import StudyWatch
from cnnjepa.cli.terminal import console, say
from cnnjepa.commands import command
from cnnjepa.errors import RunError
from cnnjepa.schemas import ConfigError, PretrainConfig
from cnnjepa.schemas.numbers import counted
from cnnjepa.schemas.study import Study
from cnnjepa.storage.locks import locked
from cnnjepa.training.stopping import StopRequest

# How long this driver waits while other drivers of the same study check and write its folder, one after another.
_PATIENCE_SECONDS = 60.0


class StudyRequest(NamedTuple):
    """A study and the options of its run."""

    study: Study
    options: StudyOptions
    trials: list[RequestedTrial]


def show_plan(request: StudyRequest) -> None:
    """Show the trials with their changes and costs. Nothing is run. If the images are not available, the size of the
    published data set is assumed, and the output says so."""
    study, options, requested = request
    out = console()
    StudyFolder(options.root, study.name).refuse_search()
    with StopRequest() as stop, _machines(options) as capacity:
        configs = [trial.config for trial in requested]
        resources = _resources(options, capacity, configs)
        resolver = Resolver("cuda" if resources.gpus else "cpu", resources.workers, options.root)
        size, where = _set_to_plan_with(request, resolver, configs)
        fits = capacity.processes(resources) >= resources.workers
        at_once = _at_once(options, resources, capacity, len(configs)) if fits else 1
        stop.tick()
        rate, how = _speed(options, resources, configs, at_once)
        stop.tick()
        each = estimates(configs, size, rate, resources.workers)
        different: dict[str, TrialEstimate] = {}
        for config, estimate in zip(configs, each, strict=True):
            different.setdefault(config.model_dump_json(), estimate)
        left = _left_to_run(request, resolver, resources)
        still: list[TrialEstimate] | str = left if isinstance(left, str) else []
        if not isinstance(left, str):
            done = trained(Pool(options.root), left)
            still = estimates([record.config for record in left], size, rate, resources.workers, done)
    out.print(plan_table([(arm, seed) for arm, seed, _ in requested], each))
    for line in plan_lines(list(different.values()), still, len(requested), resources, at_once, where, how):
        say(out, line)
    power = power_line(len(study.seeds), len({trial.arm.label for trial in requested}) - 1)
    if power:
        say(out, power)
    if not fits:
        say(out, "a trial does not fit the machines here; the hours are those of one trial after another")


def run(request: StudyRequest) -> int:
    """Run the study to its end, show its results, and return the exit code."""
    study, options, requested = request
    progress = console(stderr=True)
    folder, pool = StudyFolder(options.root, study.name), Pool(options.root)
    folder.refuse_search()
    with StopRequest() as stop, _machines(options) as capacity:
        stop.tick()
        resources = _resources(options, capacity, [requested[0].config])
        capacity.trials(resources)  # refuses a trial that would wait forever
        resolver = Resolver("cuda" if resources.gpus else "cpu", resources.workers, options.root)
        trials = plan(requested, resolver, threads=int(resources.cpus))
        records = records_of(trials, baseline_arm(study, requested, options.data).label, resources.workers)
        stop.tick()
        folder.refuse_other_study(study, records, options.extend)
        left = unfinished(pool, records, options.retry_failed)
        _announce(progress, request, folder, pool, records, left, resources, capacity, trials[0].data.size)
        # after the speed was measured: a config that cannot be built leaves no study behind
        with locked(folder.path, _PATIENCE_SECONDS):
            folder.refuse_other_study(study, records, options.extend)  # another driver may have written its own by now
            folder.write(study, records)
        with StudyWatch(progress, folder, pool, records) as watch:
            outcomes = run_study(
                folder,
                pool,
                records,
                _executor_of(options, folder, pool, resources, capacity),
                lambda: stop.reason is not None,
                options.retry_failed,
                watch.trial_ended,
            )
        stopped = stop.reason
    print_outcome(folder, pool, records)
    problems = failures(pool, records, outcomes)
    for line in problems:
        say(progress, *line)
    if stopped and unfinished(pool, records, False):
        print(f"cnnjepa: stopped ({stopped}); the same command resumes the study", file=sys.stderr)
        return 75
    left = unfinished(pool, records, False)
    if left and not problems:
        were = "trial was" if len(left) == 1 else "trials were"
        print(f"cnnjepa: {len(left)} {were} not finished; the same command resumes the study", file=sys.stderr)
    return 1 if problems or left else 0


def print_outcome(folder: StudyFolder, pool: Pool, records: list[TrialRecord]) -> None:
    """Print the results so far."""
    out = console()
    out.print(outcome_table(folder.study(), pool, records))
    if metrics := metrics_of_study(pool, records):
        out.print(metrics)
    for note in outcome_notes(pool, records):
        say(out, note)
    status = command("cnnjepa", "status", folder.name, root=folder.root)
    say(out, f"Look:  {status}   {command('tensorboard', '--logdir', folder.path / 'tensorboard')}")


def _announce(
    progress: Console,
    request: StudyRequest,
    folder: StudyFolder,
    pool: Pool,
    records: list[TrialRecord],
    left: list[TrialRecord],
    resources: Resources,
    capacity: Capacity,
    size: SetSize,
) -> None:
    total, study = len(distinct(records)), request.study
    say(progress, (str(folder.path), "bold"), f"  {study.question}")
    done = f"{total - len(left)} done before, {len(left)} left"
    say(progress, f"{counted(total, 'trial')} on {records[0].dataset}, preset {study.preset}; {done}")
    if not left:
        return
    at_once = _at_once(request.options, resources, capacity, len(left))
    rate, how = _speed(request.options, resources, [record.config for record in left], at_once)
    each = estimates([r.config for r in left], size, rate, resources.workers, trained(pool, left))
    say(progress, taking_line(each, resources, at_once, how))


def _resources(options: StudyOptions, capacity: Capacity, configs: list[PretrainConfig]) -> Resources:
    return resources_per_trial(
        capacity,
        options.workers_per_trial,
        options.gpus_per_trial,
        options.cpus_per_trial,
        on_cpu=all(config.runtime.device == "cpu" for config in configs),
        side_by_side=options.executor == "ray",
    )


@contextlib.contextmanager
def _machines(options: StudyOptions) -> Iterator[Capacity]:
    """Yield the machines that trials run on. An embedded Ray is started only when a trial is to be run."""
    if options.executor == "local" and options.address is not None:
        raise ConfigError("--address requires --executor ray")
    if options.address is None:
        if options.executor == "ray":
            ray_folder()  # refuses before anything is written
        yield this_machine()
        return
    from cnnjepa.ablations.ray_cluster import ray_at

    with ray_at(options.address) as capacity:
        yield capacity


def _executor_of(
    options: StudyOptions, folder: StudyFolder, pool: Pool, resources: Resources, capacity: Capacity
) -> Callable[[contextlib.ExitStack], Executor]:
    def make(until_done: contextlib.ExitStack) -> Executor:
        if options.executor == "local":
            return LocalExecutor(folder, pool, int(resources.cpus), resources.workers)
        from cnnjepa.ablations.ray_cluster import ray_at

        cluster = until_done.enter_context(ray_at(None)) if options.address is None else capacity
        # Ray is imported only here, after `ray_at` has set its environment.
        from cnnjepa.ablations.ray_executor import RayExecutor

        return RayExecutor(folder, pool, resources, cluster)

    return make


def _left_to_run(request: StudyRequest, resolver: Resolver, resources: Resources) -> list[TrialRecord] | str:
    """Return the trials that are not finished below the root; the reason if their names cannot be known here, because
    the device, the images or the initial weights are not available."""
    study, options, requested = request
    try:
        trials = plan(requested, resolver, threads=int(resources.cpus))
    except ConfigError as refusal:
        return str(refusal)
    records = records_of(trials, baseline_arm(study, requested, options.data).label, resources.workers)
    return unfinished(Pool(options.root), records, options.retry_failed)


def _set_to_plan_with(
    request: StudyRequest, resolver: Resolver, configs: list[PretrainConfig]
) -> tuple[SetSize | None, str]:
    try:
        facts = resolver.facts(configs[0])
        return facts.size, f"{facts.size.train:,} images per epoch ({facts.name})"
    except ConfigError as refusal:
        size = published_set(request.study.preset)
        if size is None or request.options.data is not None:
            return None, f"hours are not known: {refusal}"
        return (
            size,
            f"{size.train:,} images per epoch, assumed from the published data set; --data PATH plans with yours",
        )


def _at_once(options: StudyOptions, resources: Resources, capacity: Capacity, trials: int) -> int:
    return min(trials, capacity.trials(resources)) if options.executor == "ray" else 1


def _speed(
    options: StudyOptions, resources: Resources, configs: list[PretrainConfig], at_once: int
) -> tuple[float | None, str]:
    """Return (images/s of a process with the first config that trains, the source of that number)."""
    config = next((config for config in configs if config.trained_epochs), None)
    if config is None:
        return None, "not known: nothing is to be trained"
    if options.images_per_s is not None:
        return options.images_per_s, "as given"
    if resources.gpus and not this_machine().gpus:
        return None, "not known: this machine has no GPU to measure on; give --images-per-s"
    device = "cuda" if resources.gpus else "cpu"
    here = min(at_once * resources.workers, max(1, this_machine().processes(resources)))
    try:
        return calibrate(config, device, int(resources.cpus), here), "measured here in a few steps"
    except RunError as failure:
        return None, f"not known: the steps that measure it failed ({failure}); give --images-per-s"
