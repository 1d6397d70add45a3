"""Training cost against linear accuracy, marker area by parameters: the paper's Figure 1, with published and own runs.

Each data set has its own panel, because neither hours nor accuracies compare across data sets.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnjepa.ablations.report.comparison import Comparison, Row
from cnnjepa.ablations.report.figures.style import MARKERS, MOST_SERIES, PALETTE, Picture, canvas, picture
from cnnjepa.ablations.report.figures.text import figure_text
from cnnjepa.ablations.report.published_rows import ENCODER_PARAMS, published_tables
from cnnjepa.ablations.report.tables.cost_table import on_gpu
from cnnjepa.schemas.numbers import quantity


@dataclass(frozen=True)
class CostPoint:
    """A system in the picture."""

    label: str
    group: str
    """The system's study; empty for a published system."""
    hours: float
    linear: float
    low: float | None
    high: float | None
    params: float


def published_points() -> list[CostPoint]:
    """Return the paper's systems on ImageNet-100, and those of the authors' log that have hours."""
    tables = published_tables()
    rows = [
        (str(row.arm.get("method", "cnnjepa")), row)
        for name in ("main", "main_authors_log")
        for row in tables[name].rows
        if row.dataset == "in100" and row.gpu_hours is not None
    ]
    return [
        CostPoint(
            f"{method}, {row.encoder}",
            "",
            row.gpu_hours or 0.0,
            row.linear_top1,
            None,
            None,
            ENCODER_PARAMS[row.encoder],
        )
        for method, row in rows
    ]


def our_points(comparison: Comparison) -> tuple[bool, list[CostPoint]]:
    """Return (whether the hours are GPU-hours, one point per arm). They are GPU-hours if every counted run used GPUs,
    else hours of training."""
    rows = [row for row in comparison.rows if "linear_top1" in row.estimates and _costs(row)]
    gpu = bool(rows) and all(on_gpu(cost) for row in rows for cost in _costs(row))
    points = []
    for row in rows:
        one, costs = row.estimates["linear_top1"], _costs(row)
        hours = [cost.gpu_hours if gpu else cost.train_seconds / 3600 for cost in costs]
        points.append(
            CostPoint(
                row.arm.label, comparison.study.name, float(np.mean(hours)), one.mean, one.low, one.high,
                costs[0].encoder_params,
            )
        )  # fmt: skip
    return gpu, points


def _costs(row: Row) -> list[Any]:
    return [trial.result.cost for trial in row.counted.values() if trial.result and trial.result.cost]


def draw_cost(comparisons: list[Comparison], name: str) -> Picture:
    """Draw the published panel, and one panel per data set, protocol and kind of hours."""
    panels: dict[tuple[str, str, bool], list[CostPoint]] = {}
    for comparison in comparisons:
        gpu, points = our_points(comparison)
        if points:
            panels.setdefault((comparison.dataset, comparison.protocol, gpu), []).extend(points)
    with canvas(8.2, 3.1 * (1 + len(panels))) as figure:
        axes = figure.subplots(1 + len(panels), 1, squeeze=False)[:, 0]
        _panel(axes[0], published_points(), "A100-hours", 1.0)
        axes[0].set_title("published, ImageNet-100, protocol published, one seed each", loc="left")
        for axis, ((dataset, protocol, gpu), points) in zip(axes[1:], panels.items(), strict=True):
            unit, factor = time_unit(max(point.hours for point in points))
            _panel(axis, points, f"GPU-{unit}" if gpu else f"{unit} of training", factor)
            axis.set_title(f"ours, {figure_text(dataset)}, protocol {protocol}", loc="left")
        caption = (
            "Training cost against linear top-1, marker area by encoder parameters. Panels have their own scales: "
            "neither hours nor accuracies of different images compare. Bars are 95 % intervals."
        )
        return picture(figure, name, caption)


def time_unit(hours: float) -> tuple[str, float]:
    """Return a readable unit for this number of hours, and how many such units make an hour."""
    if hours < 100 / 3600:
        return "seconds", 3600.0
    return ("minutes", 60.0) if hours < 100 / 60 else ("hours", 1.0)


def _panel(axis: Any, points: list[CostPoint], unit: str, factor: float) -> None:
    largest = max(point.params for point in points)
    # One colour per arm if that many can be distinguished, else one colour per study.
    groups = list(dict.fromkeys(point.group for point in points))
    each = len(points) <= MOST_SERIES
    for number, point in enumerate(points):
        place = (number if each else groups.index(point.group)) % MOST_SERIES
        first = each or point is next(p for p in points if p.group == point.group)
        label = ", ".join(
            filter(None, (point.group, point.label if each else "", quantity(point.params) if each else ""))
        )
        hours = point.hours * factor
        if point.low is not None and point.high is not None:
            axis.plot([hours] * 2, [point.low, point.high], color=PALETTE[place], linewidth=1, zorder=1)
        axis.scatter(
            [hours], [point.linear], s=260 * point.params / largest + 12, color=PALETTE[place], marker=MARKERS[place],
            alpha=0.8, edgecolor="white", linewidth=0.8, label=figure_text(label) if first else None, zorder=2,
        )  # fmt: skip
    axis.set(xlabel=unit, ylabel="linear top-1, %")
    axis.margins(0.12)
    legend = axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8)
    for handle in legend.legend_handles:
        handle.set_sizes([32])
