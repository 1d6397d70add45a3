"""The page's interactive plots, as plain data for plotly's JavaScript.

A plot has variants, {"label", "traces", "layout"}, of which the reader chooses one. Colours may be `@ink` and `@quiet`,
which the page's script replaces by the theme's colours.
"""

from typing import Any

from cnnjepa.ablations.report.comparison import METRICS, Comparison, Row
from cnnjepa.ablations.report.escape import plotly_text
from cnnjepa.ablations.report.figures.accuracy_along_axis import numeric_axes
from cnnjepa.ablations.report.figures.cost import CostPoint, our_points, published_points, time_unit
from cnnjepa.ablations.report.figures.style import PALETTE
from cnnjepa.ablations.report.phrases import accuracy, interval, p_value, signed, verdict
from cnnjepa.ablations.report.statistics import AccuracyEstimate
from cnnjepa.schemas.numbers import quantity

Variant = dict[str, Any]

_GROUPS = {
    "baseline": ("baseline", "@ink", "diamond"),
    "better": ("better", PALETTE[2], "triangle-up"),
    "worse": ("worse", PALETTE[1], "triangle-down"),
    "": ("not distinguishable, or no verdict", "@quiet", "circle"),
}
_SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star")


def accuracy_plot(comparisons: list[Comparison]) -> list[Variant]:
    """Return every arm's accuracy with its interval: one variant per data set, protocol and metric."""
    return [
        _accuracy(comparison, metric, label)
        for comparison in comparisons
        for metric, label in METRICS.items()
        if any(metric in row.estimates for row in comparison.rows)
    ]


def _accuracy(comparison: Comparison, metric: str, label: str) -> Variant:
    axes = numeric_axes(comparison)
    along = axes[0] if len(axes) == 1 and len(comparison.study.study.axes) == 1 else None
    rows = [row for row in comparison.rows if metric in row.estimates]
    traces = []
    for kind, (name, colour, symbol) in _GROUPS.items():
        group = [row for row in rows if _kind(row, metric) == kind]
        if group:
            places = [row.arm.choices[along] if along else plotly_text(row.arm.label) for row in group]
            trace = _points([row.estimates[metric] for row in group], places, name, colour, symbol)
            trace["text"] = [_hover(row, metric) for row in group]
            traces.append(trace)
    x: dict[str, Any] = {"title": {"text": along.rsplit(".")[-1] if along else ""}, "automargin": True}
    if along is None:
        x |= {
            "type": "category",
            "categoryorder": "array",
            "categoryarray": [plotly_text(row.arm.label) for row in rows],
        }
    elif len(rows) <= 12:
        x |= {"tickmode": "array", "tickvals": [row.arm.choices[along] for row in rows]}
    return {
        "label": f"{label}, {comparison.dataset}, {comparison.protocol}",
        "traces": traces,
        "layout": {"xaxis": x, "yaxis": {"title": {"text": f"{label}, %"}}},
    }


def _points(estimates: list[AccuracyEstimate], places: list[Any], name: str, colour: str, symbol: str) -> Variant:
    return {
        "type": "scatter", "mode": "markers", "name": name, "x": places, "y": [one.mean for one in estimates],
        "error_y": {
            "type": "data", "symmetric": False, "thickness": 1.5, "width": 4, "color": colour,
            "array": [one.high - one.mean for one in estimates],
            "arrayminus": [one.mean - one.low for one in estimates],
        },
        "marker": {
            "color": colour, "size": 9,
            "symbol": [symbol if one.n > 1 else f"{symbol}-open" for one in estimates],
        },
        "hovertemplate": "%{text}<extra></extra>",
    }  # fmt: skip


def _kind(row: Row, metric: str) -> str:
    found = row.differences[metric].verdict if metric in row.differences else ""
    return found if found in _GROUPS else ""


def _hover(row: Row, metric: str) -> str:
    one, versus = row.estimates[metric], row.differences.get(metric)
    lines = [
        f"<b>{plotly_text(row.arm.label)}</b>",
        f"{accuracy(one)} %, 95 % {interval(one.low, one.high)}, n = {one.n}",
    ]
    if versus and versus.mean is not None:
        p = f", {p_value(versus.p_holm)}" if versus.p_holm is not None else ""
        lines.append(f"{signed(versus.mean)} from the baseline: {verdict(versus)}{p}")
    return "<br>".join(lines)


def cost_plot(comparisons: list[Comparison]) -> list[Variant]:
    """Return training cost against linear top-1: one variant per comparison, then the published one."""
    variants = []
    for comparison in comparisons:
        gpu, points = our_points(comparison)
        if points:
            unit, factor = time_unit(max(point.hours for point in points))
            label = f"ours, {comparison.study.name}, {comparison.dataset}, {comparison.protocol}"
            variants.append(_cost(points, label, f"GPU-{unit}" if gpu else f"{unit} of training", factor))
    return [*variants, _cost(published_points(), "published, ImageNet-100 (one seed each)", "A100-hours", 1.0)]


def _cost(points: list[CostPoint], label: str, unit: str, factor: float) -> Variant:
    largest = max(point.params for point in points)
    traces = []
    for number, point in enumerate(points):
        colour = PALETTE[number % 6]
        trace: Variant = {
            "type": "scatter", "mode": "markers", "name": plotly_text(point.label),
            "x": [point.hours * factor], "y": [point.linear],
            "marker": {
                "color": colour, "symbol": _SYMBOLS[number % len(_SYMBOLS)],
                "size": round(8 + 16 * (point.params / largest) ** 0.5, 2),
            },
            "text": [f"<b>{plotly_text(point.label)}</b><br>{point.linear:.2f} %, {quantity(point.params)} param."],
            "hovertemplate": "%{text}<br>%{x:.3g} " + unit + "<extra></extra>",
        }  # fmt: skip
        if point.low is not None and point.high is not None:
            trace["error_y"] = {
                "type": "data", "symmetric": False, "array": [point.high - point.linear],
                "arrayminus": [point.linear - point.low], "color": colour, "thickness": 1.2, "width": 3,
            }  # fmt: skip
        traces.append(trace)
    layout = {"xaxis": {"title": {"text": unit}}, "yaxis": {"title": {"text": "linear top-1, %"}}}
    return {"label": label, "traces": traces, "layout": layout}
