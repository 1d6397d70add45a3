"""Arms by the figures that need no labels."""

import statistics

from cnnjepa.ablations.report.label_free import FIGURES
from cnnjepa.ablations.report.reading import ArmTrials, StudyData
from cnnjepa.ablations.report.tables.table import Cell, Column, Table, number_cell, text_cell
from cnnjepa.schemas import TrialResult

_NOTES = (
    "Means over the finished seeds of an arm, on validation images. RankMe: effective rank of the features (arXiv "
    "2210.02885). LiDAR: effective rank of what distinguishes images from crops of one image (arXiv 2312.04000). "
    "α-ReQ: exponent of the covariance's spectrum (arXiv 2202.05808); features are best near 1. Feature spread: 0 = "
    "all equal, about 1 = spread.",
    "Held-out loss: the method's own, with fixed views and masks. Losses of different methods, masks or views are not "
    "comparable.",
)


def diagnostics_table(study: StudyData, name: str) -> Table | None:
    """Return a table with one row per arm, means over its finished trials. None if all images have labels and no trial
    has the figures that are newer than RankMe and spread."""
    results = [trial.result for trial in study.trials if trial.result]
    if not any(_shown(result) for result in results):
        return None
    health = [one.diagnostics for one in results if one.diagnostics]
    figures = [figure for figure in FIGURES if any(figure.read(one) is not None for one in health)]
    columns = [Column("arm", "arm", numeric=False), Column("n", "n")]
    columns += [*(Column(figure.key, figure.label) for figure in figures), Column("final_loss", "final loss")]
    rows = []
    for arm in study.arms:
        of_arm = _results(arm)
        cells = [text_cell(arm.label), Cell(str(len(of_arm)), {"": len(of_arm)}, len(of_arm))]
        for figure in figures:
            values = [figure.read(one.diagnostics) for one in of_arm if one.diagnostics]
            cells.append(number_cell(_mean(values), figure.digits))
        cells.append(number_cell(_mean([one.final_loss for one in of_arm]), 4))
        rows.append(tuple(cells))
    return Table(name, f"{study.name}: figures without labels", tuple(columns), tuple(rows), _NOTES)


def _shown(result: TrialResult) -> bool:
    return result.probes is None or bool(result.diagnostics and result.diagnostics.lidar is not None)


def _results(arm: ArmTrials) -> list[TrialResult]:
    return [trial.result for trial in arm.trials if trial.result]


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None
