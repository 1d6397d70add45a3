"""Table of measured training steps per method, if `cnnjepa benchmark --cost` has been run below the root."""

import numpy as np

from cnnjepa.ablations.published import published_time_shares
from cnnjepa.ablations.report.phrases import interval
from cnnjepa.ablations.report.statistics import mean_ratio
from cnnjepa.ablations.report.tables.table import Cell, Column, Table, number, words
from cnnjepa.ablations.step_cost_file import REFERENCE, StepCostFile
from cnnjepa.schemas.numbers import quantity

_COLUMNS = (
    Column("method", "method", numeric=False),
    Column("seconds", "s a step", ("", "least", "most")),
    Column("rounds", "n"),
    Column("share", "CNN-JEPA takes, of its time", ("", "low", "high")),
    Column("flops_share", "of its FLOPs"),
    Column("memory_share", "of its memory"),
    Column("published_share", "published, of its hours"),
    Column("answer", "a step of CNN-JEPA is cheaper", numeric=False),
)


def step_cost_table(costs: StepCostFile, name: str) -> Table:
    """Return a table with one row per method. The claim is answered for the methods that the paper names in it."""
    facts = costs.environment
    processor = facts.get("cpu", "hardware that was not recorded")
    hardware = facts["gpus"][0] if facts.get("device", "cpu").startswith("cuda") and facts.get("gpus") else processor
    notes = (
        "Random pixels: loading and augmenting images are left out, which the published hours include. A method's "
        "steps and CNN-JEPA's take turns. The share is the geometric mean over n rounds with its 95 % t interval, of "
        "one machine and one run; a claim holds when the interval lies below 1, and does not when it lies above.",
        f"Measured on {hardware}, {facts.get('threads', '?')} threads, torch {facts.get('torch', '?')}.",
    )
    rows = tuple(_row(costs, method) for method in costs.methods)
    return Table(name, f"{costs.title[0].upper()}{costs.title[1:]}", _COLUMNS, rows, notes)


def _row(costs: StepCostFile, method: str) -> tuple[Cell, ...]:
    one, ours = costs.methods[method], costs.methods[REFERENCE]
    least, most = min(one.seconds), max(one.seconds)
    median = float(np.median(one.seconds))
    cells = [
        words(method),
        Cell(f"{median:.3g}", {"": median, "least": least, "most": most}, median, below=f"{least:.3g} to {most:.3g}"),
        Cell(str(len(one.seconds)), {"": len(one.seconds)}, len(one.seconds)),
    ]
    if method == REFERENCE:
        sizes = f"{quantity(one.flops_per_image, 'FLOP')} an image", f"{one.memory_bytes / 2**30:.2f} GiB"
        return (*cells, Cell("–"), *(Cell(size, {}, None, "quiet") for size in sizes), Cell("–"), Cell("–"))
    share, low, high = mean_ratio(costs.shares(method))
    claimed = published_time_shares().get(method)
    said = "" if claimed is None else "cannot tell"
    if claimed is not None and low is not None and high is not None:
        said = "holds" if high < 1 else "does not hold" if low > 1 else said
    tone = {"holds": "better", "does not hold": "worse"}.get(said, "quiet")
    per_image = ours.memory_bytes / one.memory_bytes * one.images / ours.images if one.memory_bytes else None
    between = interval(low, high) if low is not None else ""
    return (
        *cells,
        Cell(f"{share:.2f}", {"": share, "low": low, "high": high}, share, below=between),
        number(ours.flops_per_image / one.flops_per_image, 2),
        number(per_image, 2),
        number(claimed, 2),
        Cell(said or "–", {"": said}, said or None, tone),  # type: ignore[arg-type]
    )
