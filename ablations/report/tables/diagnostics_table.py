"""Arms by the figures that need no labels, for studies on images without labels."""

import statistics
from collections.abc import Callable

from cnnjepa.ablations.report.reading import ArmTrials, StudyData
from cnnjepa.ablations.report.tables.table import Cell, Column, Table, number_cell, text_cell
from cnnjepa.schemas import TrialResult

Figure = Callable[[TrialResult], float | None]

_FIGURES: tuple[tuple[str, str, int, Figure], ...] = (
    ("rankme", "RankMe", 1, lambda result: result.diagnostics.rankme if result.diagnostics else None),
    ("feature_std", "feature spread", 3, lambda result: result.diagnostics.feature_std if result.diagnostics else None),
    ("final_loss", "final loss", 4, lambda result: result.final_loss),
)


def diagnostics_table(study: StudyData, name: str) -> Table | None:
    """Return a table with one row per arm, means over its finished trials; None if the images have labels."""
    rows = [row for arm in study.arms if (row := _row(arm))]
    if not rows:
        return None
    columns = [Column("arm", "arm", numeric=False), Column("n", "n")]
    columns += [Column(key, label) for key, label, _, _ in _FIGURES]
    return Table(
        name,
        f"{study.name}: diagnostics of the features on validation images, without labels",
        tuple(columns),
        tuple(rows),
        (
            "Means over the seeds of an arm. RankMe: effective rank of the features (arXiv 2210.02885). Feature "
            "spread: 0 = all equal, about 1 = spread. Losses of different methods or maskings are not comparable.",
        ),
    )


def _row(arm: ArmTrials) -> tuple[Cell, ...] | None:
    results = [trial.result for trial in arm.trials if trial.result and trial.result.probes is None]
    if not results:
        return None
    cells = [text_cell(arm.label), Cell(str(len(results)), {"": len(results)}, len(results))]
    for _, _, digits, figure in _FIGURES:
        values = [value for result in results if (value := figure(result)) is not None]
        cells.append(number_cell(statistics.mean(values) if values else None, digits))
    return tuple(cells)
