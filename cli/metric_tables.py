"""Table of a study's probe metrics with their floors."""

import statistics
from collections.abc import Mapping, Sequence

from cnnjepa.ablations.pool import Pool
from cnnjepa.ablations.study_folder import TrialRecord, status_of
from cnnjepa.cli.sheet import Sheet
from cnnjepa.schemas import TrialResult
from cnnjepa.schemas.numbers import exact
from cnnjepa.schemas.result import FLOOR_NAMES

Figures = Mapping[str, float]


def metrics_of_study(pool: Pool, records: list[TrialRecord]) -> Sheet | None:
    """Return a table of the metrics on the first set, with one row per arm and one per floor; None if no finished trial
    has metrics."""
    results: dict[str, list[TrialResult]] = {record.arm: [] for record in records}
    for record in records:
        status = status_of(pool, record)
        if status.state == "finished" and status.result:
            results[record.arm].append(status.result)
    sets = {arm: [result.first_set for result in of_arm] for arm, of_arm in results.items()}
    every = [found for of_arm in sets.values() for found in of_arm]
    names = list(dict.fromkeys(name for found in every for name in found.metrics))
    if not names:
        return None
    table = Sheet(
        ("arm", *names), title=(("figures of probe.metrics", "bold"),), caption="±: standard deviation over seeds"
    )
    for arm, of_arm in sets.items():
        table.add(arm, *(_shown([found.metrics for found in of_arm], name) for name in names))
    floors = {name: [figures for found in every if (figures := found.floors.metrics.get(name))] for name in FLOOR_NAMES}
    if any(floors.values()):
        table.rule()
    for floor, measured in floors.items():
        if measured:
            means = (_shown(measured, name, spread=False) for name in names)
            table.add((f"floor: {FLOOR_NAMES[floor]}", "dim"), *means)
    return table


def _shown(figures: Sequence[Figures], name: str, spread: bool = True) -> str:
    values = [one[name] for one in figures if name in one]
    if not values:
        return "–"
    sd = f" ±{statistics.stdev(values):.2g}" if spread and len(values) > 1 else ""
    return f"{exact(round(statistics.mean(values), 4))}{sd}"
