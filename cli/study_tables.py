"""Tables of a study: its plan, the status of its trials, and its results."""

import math
import statistics
from collections.abc import Iterable

from cnnjepa.ablations.arms import Arm
from cnnjepa.ablations.driver import distinct
from cnnjepa.ablations.estimate import TrialEstimate
from cnnjepa.ablations.pool import Pool, TrialStatus
from cnnjepa.ablations.report.statistics import POWER, smallest_effect
from cnnjepa.ablations.resources import Resources
from cnnjepa.ablations.study_folder import TrialKey, TrialRecord, status_of
from cnnjepa.ablations.trial_runner import Outcome
from cnnjepa.cli.sheet import Cell, Sheet
from cnnjepa.probes.interval import wilson
from cnnjepa.schemas import TrialResult
from cnnjepa.schemas.numbers import counted, duration, quantity
from cnnjepa.schemas.study import Study

_MORE_SEEDS = (3, 5, 8, 12)

_FLOORS = (("floor: untrained", "untrained"), ("floor: warm start", "warm_start"), ("floor: raw pixels", "pixels"))
_STATES = ("running", "finished", "collapsed", "failed", "unreadable", "begun", "waiting")
_WORST_FIRST = ("failed", "unreadable", "collapsed", "begun", "waiting", "running", "finished")
_COLOURS = {"running": "cyan", "finished": "green", "collapsed": "red", "failed": "red", "unreadable": "red"}


def plan_table(trials: list[tuple[Arm, int]], each: list[TrialEstimate]) -> Sheet:
    """Return a table with one row per arm: its changes and the cost of one of its trials."""
    table = Sheet(
        ("arm, and what it changes", "encoder", "predictor", "FLOP", "time", "disk"),
        caption="per trial: parameters, FLOPs of a training step per image, time, size of the checkpoints; work that "
        "several trials share counts in the first",
    )
    first = {arm.label: (arm, estimate) for (arm, _), estimate in reversed(list(zip(trials, each, strict=True)))}
    for label, (arm, estimate) in reversed(first.items()):
        changes = (f"  {path.removeprefix('method.')}={value}" for path, value in arm.changes.items())
        table.add(
            [label, *((change, "dim") for change in changes)],
            quantity(estimate.cost.encoder_params),
            quantity(estimate.cost.predictor_params),
            quantity(estimate.cost.flops_per_image),
            _hours(estimate.hours),
            quantity(estimate.disk_bytes, "B"),
        )
    return table


def plan_lines(
    each: list[TrialEstimate],
    left: list[TrialEstimate] | str,
    asked: int,
    resources: Resources,
    at_once: int,
    images: str,
    speed: str,
) -> list[str]:
    """Return the sums below the plan's table: over the distinct trials, and over those `left` to run; `left` is the
    reason if these are not known."""
    same = f" ({asked} requested; arms with the same config share a trial)" if asked > len(each) else ""
    return [
        f"{counted(len(each), 'trial')}{same}; {images}",
        taking_line(each, resources, at_once, speed),
        *_left_lines(each, left, at_once),
        f"disk {quantity(sum(estimate.disk_bytes for estimate in each), 'B')} of checkpoints; nothing was run",
    ]


def _left_lines(each: list[TrialEstimate], left: list[TrialEstimate] | str, at_once: int) -> list[str]:
    if isinstance(left, str):
        return [f"which trials are finished, and would not be run again, is not known: {left}"]
    done = len(each) - len(left)
    if not done:
        return []
    hours = [estimate.hours for estimate in left if estimate.hours is not None]
    takes = f": about {_hours(_rounds(hours, at_once))}" if hours and len(hours) == len(left) else ""
    return [f"{done} of them finished before and would not be run again; {len(left)} left{takes}"]


def power_line(seeds: int, others: int) -> str | None:
    """Return the smallest difference that this number of seeds, and larger ones, can detect; None if nothing is
    compared. Every other arm is tested against the baseline by linear and k-NN top-1."""
    tests = 2 * others
    if others < 1:
        return None
    counts = [seeds, *(n for n in _MORE_SEEDS if n > seeds)][:3]
    found = [(n, smallest_effect(n, tests)) for n in counts]
    parts = [f"{n} seeds {effect:.1f}" for n, effect in found if effect is not None]
    one = "one seed allows no test; " if seeds == 1 else ""
    return (
        f"{one}smallest detectable difference ({100 * POWER:.0f} % power, Holm over {tests} tests), in standard "
        f"deviations of the per-seed difference: {', '.join(parts)}"
    )


def taking_line(each: list[TrialEstimate], resources: Resources, at_once: int, speed: str) -> str:
    """Return the estimated time and the resources in words."""
    gpus = f"{resources.gpus:g} GPU(s), " if resources.gpus else ""
    each_takes = f"{gpus}{resources.workers} process(es) of {resources.cpus:g} CPU(s)"
    side = f"{at_once} in parallel" if at_once > 1 else "one after another"
    hours = [estimate.hours for estimate in each if estimate.hours is not None]
    if len(hours) < len(each):
        return f"each takes {each_takes}, {side}; speed {speed}"
    training = _rounds([estimate.train_hours or 0.0 for estimate in each], at_once)
    total = _rounds(hours, at_once)
    gpu_hours = f", {resources.gpus * sum(hours):.3g} GPU-hours" if resources.gpus else ""
    parts = f"{_hours(training)} of training, {_hours(total - training)} of probes"
    return f"about {_hours(total)} ({parts}){gpu_hours}: each takes {each_takes}, {side}; speed {speed}"


def _rounds(hours: list[float], at_once: int) -> float:
    """Return the wall hours when each trial begins as soon as a place is free."""
    places = [0.0] * min(at_once, len(hours))
    for each in hours:
        places[places.index(min(places))] += each
    return max(places)


def _hours(hours: float | None) -> str:
    return "?" if hours is None else duration(3600 * hours)


def status_table(records: list[TrialRecord], statuses: dict[TrialKey, TrialStatus]) -> Sheet:
    """Return a table with one row per trial: state, progress, loss, probe, time left."""
    table = Sheet(("arm", "seed", "state", "done", "loss", "k-NN", "left", "trial"), left=(0, 2))
    for record in records:
        status = statuses[record.key]
        colour = _COLOURS.get(status.state, "dim")
        table.add(
            record.arm,
            str(record.seed),
            (status.state, colour),
            "" if status.state == "waiting" else f"{100 * status.progress:.0f} %",
            "" if status.loss is None else f"{status.loss:.4f}",
            _knn(status),
            "" if status.state != "running" else _left(status),
            record.pretrain_hash[:12],
        )
    return table


def _left(status: TrialStatus) -> str:
    if status.seconds_left is None:
        return ""
    return "probing" if status.progress >= 1 else duration(status.seconds_left)


def _knn(status: TrialStatus) -> str:
    probes = status.result and status.result.first_set.probes
    figures = probes and (probes.held_out or probes.published)
    if figures and figures.knn_top1 is not None:
        return f"{figures.knn_top1:.1f}"
    return "" if status.knn is None else f"({status.knn:.1f})"


def counts_line(records: list[TrialRecord], statuses: dict[TrialKey, TrialStatus]) -> str:
    """Return the number of trials per state, such as `2 running, 3 finished, 1 waiting`."""
    states = [statuses[record.key].state for record in distinct(records)]
    return ", ".join(f"{states.count(state)} {state}" for state in _STATES if state in states)


def outcome_table(study: Study, pool: Pool, records: list[TrialRecord]) -> Sheet:
    """Return a table with one row per arm: accuracies over its seeds."""
    statuses = {record.key: status_of(pool, record) for record in records}
    results = [s.result for s in statuses.values() if s.settled and s.result]
    if results and all(result.probes is None for result in results):
        return _unlabelled_table(study, records, statuses)
    published_only = results and not any(result.first_set.probes.held_out for result in results)
    protocol = "published" if published_only else "held_out"
    table = Sheet(
        ("arm", "n", "linear", "k-NN", "predictor", "images/s"),
        title=((study.name, "bold"), f": {records[0].dataset}, protocol {protocol}, top-1 in %"),
        caption="±: standard deviation over seeds; at n = 1 half of the binomial 95 % interval of that run",
    )
    for arm in dict.fromkeys(record.arm for record in records):
        of_arm = [record for record in records if record.arm == arm]
        found = [statuses[record.key] for record in of_arm]
        finished = [s.result for s in found if s.state == "finished" and s.result]
        linear, knn = (_accuracy(finished, protocol, name) for name in ("linear_top1", "knn_top1"))
        costs = [result.cost for result in finished if result.cost]
        speeds = [cost.images_per_s for cost in costs if cost.images_per_s]  # empty if nothing is trained
        table.add(
            f"{arm} (baseline)" if of_arm[0].baseline else arm,
            str(len(finished)),
            linear,
            knn,
            quantity(costs[0].predictor_params) if costs else "",
            f"{statistics.mean(speeds):,.0f}" if speeds else "–",
        )
    floors = _floor_rows(results, protocol)
    if floors:
        table.rule()
        for label, linear, knn in floors:
            table.add((label, "dim"), "", linear, knn, "", "")
    return table


def _unlabelled_table(study: Study, records: list[TrialRecord], statuses: dict[TrialKey, TrialStatus]) -> Sheet:
    """Return a table with one row per arm: diagnostics of the features over its seeds, which need no labels."""
    table = Sheet(
        ("arm", "n", "RankMe", "LiDAR", "α-ReQ", "spread", "held-out\nloss", "final\nloss"),
        title=((study.name, "bold"), f": {records[0].dataset}, without labels"),
        caption="on validation images; ±: standard deviation over seeds. Losses of different maskings do not compare",
    )
    for arm in dict.fromkeys(record.arm for record in records):
        of_arm = [record for record in records if record.arm == arm]
        found = [s.result for record in of_arm if (s := statuses[record.key]).state == "finished" and s.result]
        health = [result.diagnostics for result in found if result.diagnostics]
        table.add(
            f"{arm} (baseline)" if of_arm[0].baseline else arm,
            str(len(found)),
            _mean([one.rankme for one in health], 1),
            _mean([one.lidar for one in health], 1),
            _mean([one.alpha_req for one in health], 2),
            _mean([one.feature_std for one in health], 3),
            _mean([one.heldout_loss for one in health], 4),
            _mean([result.final_loss for result in found], 4),
        )
    return table


def _mean(figures: Iterable[float | None], digits: int) -> str:
    values = [value for value in figures if value is not None]
    if not values:
        return "–"
    spread = f" ±{statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def outcome_notes(pool: Pool, records: list[TrialRecord]) -> list[str]:
    """Return a line for every arm that has unfinished trials, failures first."""
    notes: list[tuple[int, str]] = []
    for arm in dict.fromkeys(record.arm for record in records):
        states = [status_of(pool, record).state for record in records if record.arm == arm]
        others = [state for state in _WORST_FIRST if state in states and state != "finished"]
        if others:
            counts = ", ".join(f"{states.count(state)} {state}" for state in others)
            notes.append((_WORST_FIRST.index(others[0]), f"{arm}: {counts}"))
    return [note for _, note in sorted(notes, key=lambda pair: pair[0])]


def _accuracy(results: Iterable[TrialResult], protocol: str, name: str) -> str:
    pairs = []
    for result in results:
        found = result.first_set
        value = getattr(getattr(found.probes, protocol), name, None)
        if value is not None and math.isfinite(value):
            pairs.append((value, found.val_images))
    if not pairs:
        return "–"
    values = [value for value, _ in pairs]
    if len(values) > 1:
        return f"{statistics.mean(values):.1f} ±{statistics.stdev(values):.1f}"
    if not pairs[0][1]:
        return f"{values[0]:.1f}"
    low, high = wilson(values[0], pairs[0][1])
    return f"{values[0]:.1f} ±{(high - low) / 2:.1f}"


def _floor_rows(results: list[TrialResult], protocol: str) -> list[tuple[str, str, str]]:
    rows = []
    for label, name in _FLOORS:
        found = [p for result in results if (p := getattr(getattr(result.first_set.floors, name), protocol, None))]
        cells = []
        for figure in ("linear_top1", "knn_top1"):
            values = [v for figures in found if (v := getattr(figures, figure)) is not None]
            cells.append(f"{statistics.mean(values):.1f}" if values else "–")
        if found:
            rows.append((label, cells[0], cells[1]))
    return rows


def failures(pool: Pool, records: list[TrialRecord], outcomes: dict[TrialKey, Outcome]) -> list[list[Cell]]:
    """Return the failures as lines of text with styles: every trial's complete error, the end of its log, and what to
    do."""
    lines: list[list[Cell]] = []
    again = False
    for record in distinct(records):
        status = status_of(pool, record)
        outcome = outcomes.get(record.key)
        if status.state in ("failed", "unreadable"):
            again = True
            first, *others = (status.problem or "").splitlines() or [""]
            lines.append([(status.state, "red"), f" {record.label}: {first}"])
            lines += [[f"    {line}"] for line in others]
            tail = status.result.log_tail if status.result else None
            lines += [[(f"    {line}", "dim")] for line in (tail or "").splitlines()[-8:]]
        elif outcome is not None and outcome.status in ("died", "failed") and not status.settled:
            text = f" {record.label}: {outcome.detail}; the same command resumes it"
            lines.append([(outcome.status, "red"), text])
    if again:
        lines.append(["--retry-failed runs what failed again"])
    return lines
