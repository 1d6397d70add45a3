"""The table of probe metrics: every arm's figures of `probe.metrics`, averaged over seeds."""

import statistics
from collections.abc import Iterable

from cnnjepa.ablations.report.reading import ArmTrials, StudyData
from cnnjepa.ablations.report.tables.table import Cell, Column, Table
from cnnjepa.schemas.result import FLOOR_NAMES

_ENDINGS = ("mean", "sd", "n")


def metric_names(study: StudyData) -> list[str]:
    """Return the names of all figures of `probe.metrics` that a finished trial has, in their order."""
    results = [trial.result for trial in study.trials if trial.result]
    return list(dict.fromkeys(name for result in results for name in result.metrics))


def metrics_table(study: StudyData, dataset: str, name: str) -> Table | None:
    """Return a table with one row per arm; None if no trial on these images has a metric."""
    arms = study.on(dataset)
    names = [one for one in metric_names(study) if any(_values(arm, one) for arm in arms)]
    if not names:
        return None
    columns = [Column("arm", "arm", numeric=False), *(Column(one, one, _ENDINGS) for one in names)]
    rows = tuple(
        (Cell(arm.label, {"": arm.label}, arm.label), *(_cell(_values(arm, one)) for one in names)) for arm in arms
    )
    note = (
        "Mean ± standard deviation over the finished seeds; n is given where there are several. These figures are not "
        "compared with the baseline by a test, because neither their range nor their direction is known."
    )
    notes = (note, *_floor_notes(arms, names))
    return Table(name, f"{study.name}: probe metrics on {dataset}", tuple(columns), rows, notes)


def _floor_notes(arms: Iterable[ArmTrials], names: list[str]) -> list[str]:
    """Return a sentence per floor with the range of every figure over the finished trials."""
    sets = [found for arm in arms for trial in arm.trials if trial.result for found in trial.result.by_set]
    notes = []
    for floor, label in FLOOR_NAMES.items():
        ranges = []
        for name in names:
            reached = [
                value
                for found in sets
                for key, value in found.floors.metrics.get(floor, {}).items()
                if name in (key, f"{found.name}: {key}")
            ]
            if reached:
                low, high = f"{min(reached):.4g}", f"{max(reached):.4g}"
                ranges.append(f"{name} {low}" + (f" to {high}" if high != low else ""))
        if ranges:
            notes.append(f"Floor, {label}: {', '.join(ranges)}.")
    return notes


def _values(arm: ArmTrials, metric: str) -> dict[int, float]:
    """Return seed → figure of the finished trials that have it."""
    results = {trial.record.seed: trial.result for trial in arm.trials if trial.result}
    return {seed: result.metrics[metric] for seed, result in sorted(results.items()) if metric in result.metrics}


def _cell(by_seed: dict[int, float]) -> Cell:
    if not by_seed:
        return Cell("–", {}, None, "quiet")
    values = list(by_seed.values())
    mean, n = statistics.fmean(values), len(values)
    sd = statistics.stdev(values) if n > 1 else None
    text = f"{mean:.4g}" if sd is None else f"{mean:.4g} ± {sd:.2g} (n = {n})"
    note = ", ".join(f"seed {seed}: {value:.6g}" for seed, value in by_seed.items())
    return Cell(text, {"mean": mean, "sd": sd, "n": n}, mean, note=note)
