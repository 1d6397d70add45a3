"""Table of measured training steps per method, if `cnnjepa benchmark --cost` has been run below the root."""

import numpy as np

from cnnjepa.ablations.published import published_time_shares
from cnnjepa.ablations.report.phrases import interval
from cnnjepa.ablations.report.statistics import mean_ratio
from cnnjepa.ablations.report.tables.table import Cell, Column, Table, number_cell, text_cell
from cnnjepa.ablations.step_cost_file import REFERENCE, StepCostFile
from cnnjepa.schemas.numbers import quantity

_COLUMNS = (
    Column("method", "method", numeric=False),
    Column("seconds", "s per step", ("", "least", "most")),
    Column("rounds", "n"),
    Column("share", "time, CNN-JEPA / method", ("", "low", "high")),
    Column("flops_share", "FLOPs, CNN-JEPA / method"),
    Column("memory_share", "memory, CNN-JEPA / method"),
    Column("published_share", "published hours, CNN-JEPA / method"),
    Column("answer", "CNN-JEPA's step is cheaper", numeric=False),
)


def step_cost_table(costs: StepCostFile, name: str) -> Table:
    """Return a table with one row per method. The claim is answered for the methods that the paper names in it."""
    facts = costs.environment
    processor = facts.get("cpu", "unrecorded hardware")
    hardware = facts["gpus"][0] if facts.get("device", "cpu").startswith("cuda") and facts.get("gpus") else processor
    notes = (
        "Random pixels: the time of loading and augmenting images is left out; the published hours include it. Steps "
        "of a method alternate with steps of CNN-JEPA. The time ratio is the geometric mean over n rounds with its 95 "
        "% t interval, from one machine and one run. The claim holds if the interval lies below 1, does not hold if it "
        "lies above 1, and is inconclusive otherwise.",
        f"Measured on {hardware}, {facts.get('threads', '?')} threads, torch {facts.get('torch', '?')}.",
    )
    rows = tuple(_row(costs, method) for method in costs.methods)
    return Table(name, f"{costs.title[0].upper()}{costs.title[1:]}", _COLUMNS, rows, notes)


def _row(costs: StepCostFile, method: str) -> tuple[Cell, ...]:
    one, ours = costs.methods[method], costs.methods[REFERENCE]
    least, most = min(one.seconds), max(one.seconds)
    median = float(np.median(one.seconds))
    cells = [
        text_cell(method),
        Cell(f"{median:.3g}", {"": median, "least": least, "most": most}, median, below=f"{least:.3g} to {most:.3g}"),
        Cell(str(len(one.seconds)), {"": len(one.seconds)}, len(one.seconds)),
    ]
    if method == REFERENCE:
        sizes = f"{quantity(one.flops_per_image, 'FLOP')} per image", f"{one.memory_bytes / 2**30:.2f} GiB"
        return (*cells, Cell("–"), *(Cell(size, {}, None, "quiet") for size in sizes), Cell("–"), Cell("–"))
    share, low, high = mean_ratio(costs.shares(method))
    claimed = published_time_shares().get(method)
    said = "" if claimed is None else "inconclusive"
    if claimed is not None and low is not None and high is not None:
        said = "holds" if high < 1 else "does not hold" if low > 1 else said
    tone = {"holds": "better", "does not hold": "worse"}.get(said, "quiet")
    per_image = ours.memory_bytes / one.memory_bytes * one.images / ours.images if one.memory_bytes else None
    between = interval(low, high) if low is not None else ""
    return (
        *cells,
        Cell(f"{share:.2f}", {"": share, "low": low, "high": high}, share, below=between),
        number_cell(ours.flops_per_image / one.flops_per_image, 2),
        number_cell(per_image, 2),
        number_cell(claimed, 2),
        Cell(said or "–", {"": said}, said or None, tone),  # type: ignore[arg-type]
    )
