"""The table of probe metrics: every arm's figures of `probe.metrics`, averaged over seeds."""

import statistics

from cnnjepa.ablations.report.reading import ArmTrials, StudyData
from cnnjepa.ablations.report.tables.table import Cell, Column, Table

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
    return Table(name, f"{study.name}: probe metrics on {dataset}", tuple(columns), rows, (note,))


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
