"""Comparison of one study's arms with the baseline, on one data set under one protocol: the basis of tables and
words."""

from dataclasses import dataclass
from typing import Literal

from cnnjepa.ablations.report.published_rows import (
    MatchedRow,
    counterparts,
    matched_rows,
    published_set_of,
    published_tables,
)
from cnnjepa.ablations.report.reading import ArmTrials, ReportedTrial, StudyData
from cnnjepa.ablations.report.statistics import (
    AccuracyEstimate,
    Agreement,
    Difference,
    agreement,
    corrected,
    counts,
    difference,
    estimate,
)
from cnnjepa.schemas.probe import Protocol

Metric = Literal["linear_top1", "knn_top1"]
METRICS: dict[Metric, str] = {"linear_top1": "linear top-1", "knn_top1": "k-NN top-1"}
ACCURACIES = ("linear_top1", "linear_top5", "knn_top1", "knn_top5")


@dataclass(frozen=True)
class Row:
    """An arm in a comparison."""

    arm: ArmTrials
    counted: dict[int, ReportedTrial]
    """Seed → trial whose figures are in the row: the same trials for linear and k-NN."""
    values: dict[str, dict[int, float]]
    """Accuracy → seed → percent. An accuracy that one of the counted trials lacks is absent."""
    estimates: dict[str, AccuracyEstimate]
    differences: dict[str, Difference]
    """Differences from the baseline for both top-1 accuracies, corrected over the whole comparison."""
    published: MatchedRow | None
    """The row published on these images; None on all others."""

    @property
    def problems(self) -> list[str]:
        """Return the states of the seeds that are not counted, in words."""
        words = {
            "collapsed": "collapsed", "failed": "failed", "begun": "begun, not finished", "running": "running",
            "waiting": "not run yet", "unreadable": "unreadable",
        }  # fmt: skip
        n = len(self.arm.trials)
        found = []
        for state, word in words.items():
            if trials := self.arm.in_state(state):
                found.append(f"{len(trials)} of {n} {word}")
        without = [t for t in self.arm.in_state("finished") if t.record.seed not in self.counted]
        if without:
            found.append(f"{len(without)} of {n} without both figures of this protocol")
        return found


@dataclass(frozen=True)
class Comparison:
    """All arms of a study on one data set, under one protocol."""

    study: StudyData
    dataset: str
    protocol: Protocol
    rows: tuple[Row, ...]
    agreements: dict[Metric, Agreement]
    """Agreement with the published ordering. It is empty without such an ordering, and under any protocol but the one
    of the published numbers."""
    published_set: str | None
    """The published data set that these images are, `in100` or `in1k`; None for all others."""
    ordered_on: str | None
    """The published data set of the ordering, `in100` or `in1k`: our own, or the one used in its place."""

    @property
    def baseline(self) -> Row | None:
        """The arm that the others are compared with; None if it is on another data set."""
        return next((row for row in self.rows if row.arm.baseline), None)

    @property
    def comparisons(self) -> int:
        """Number of comparisons in Holm's correction, including those that cannot be tested yet."""
        return sum(counts(d) for row in self.rows for d in row.differences.values())

    @property
    def empty(self) -> bool:
        """True if no trial has figures of this protocol."""
        return not any(row.counted for row in self.rows)


def compare(study: StudyData, dataset: str, protocol: Protocol) -> Comparison:
    """Return the comparison, with every statistic of its table."""
    arms = study.on(dataset)
    base = next((arm for arm in arms if arm.baseline), None)
    counted = {arm.label: arm.counted(protocol) for arm in arms}
    values = {arm.label: _values(counted[arm.label], protocol) for arm in arms}
    differences = {arm.label: {} for arm in arms} if base is None else _differences(arms, base, values)
    # The published numbers belong to their own protocol and are not compared with any other.
    table = published_tables()[study.study.published] if study.study.published and protocol == "published" else None
    configs = {arm.label: arm.config for arm in arms}
    published_set = _published_set(dataset, [run for runs in counted.values() for run in runs.values()])
    published = matched_rows(table, configs, published_set or dataset) if table else {}
    ordered_on, ordering = counterparts(table, configs, published_set or dataset) if table else (None, {})
    rows = []
    for arm in arms:
        runs = counted[arm.label]
        images = [t.result.first_set.val_images for t in runs.values() if t.result]
        estimates = {
            name: found
            for name, by_seed in values[arm.label].items()
            if (found := estimate(list(by_seed.values()), images[0]))
        }
        rows.append(Row(arm, runs, values[arm.label], estimates, differences[arm.label], published.get(arm.label)))
    return Comparison(study, dataset, protocol, tuple(rows), _agreements(rows, ordering), published_set, ordered_on)


def _published_set(dataset: str, trials: list[ReportedTrial]) -> str | None:
    sizes = {(trial.result.train_images, trial.result.val_images) for trial in trials if trial.result}
    return published_set_of(dataset, *(sizes.pop() if len(sizes) == 1 else (None, None)))


def _values(counted: dict[int, ReportedTrial], protocol: Protocol) -> dict[str, dict[int, float]]:
    values = {}
    for name in ACCURACIES:
        by_seed = {seed: getattr(trial.figures(protocol), name) for seed, trial in sorted(counted.items())}
        if by_seed and None not in by_seed.values():
            values[name] = by_seed
    return values


def _differences(
    arms: list[ArmTrials], base: ArmTrials, values: dict[str, dict[str, dict[int, float]]]
) -> dict[str, dict[str, Difference]]:
    names = {trial.record.seed: trial.record.key for trial in base.trials}
    places, found = [], []
    for arm in arms:
        same = all(names.get(trial.record.seed) == trial.record.key for trial in arm.trials)
        for metric in METRICS:
            ours, theirs = values[arm.label].get(metric, {}), values[base.label].get(metric, {})
            places.append((arm.label, metric))
            if arm.baseline:
                found.append(Difference("baseline", len(ours)))
            elif same:
                found.append(Difference("same runs", len(ours)))
            else:
                found.append(difference(ours, theirs))
    result: dict[str, dict[str, Difference]] = {arm.label: {} for arm in arms}
    for (label, metric), one in zip(places, corrected(found), strict=True):
        result[label][metric] = one
    return result


def _agreements(rows: list[Row], ordering: dict[str, MatchedRow]) -> dict[Metric, Agreement]:
    """Return the agreement with the published ordering. An arm is included if it has a figure of ours and is the only
    one that matches its published row. All rows belong to one data set."""
    found: dict[Metric, Agreement] = {}
    for metric in METRICS:
        pairs = [
            (row.estimates[metric].mean, getattr(theirs.row, metric))
            for row in rows
            if (theirs := ordering.get(row.arm.label)) and theirs.alone and metric in row.estimates
        ]
        one = agreement([ours for ours, _ in pairs], [theirs for _, theirs in pairs])
        if one:
            found[metric] = one
    return found
