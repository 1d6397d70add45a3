"""Every arm's accuracy with its interval and its seeds, and its difference from the baseline."""

from typing import Any

from matplotlib.lines import Line2D

from cnnjepa.ablations.report.comparison import METRICS, Comparison, Row
from cnnjepa.ablations.report.pictures.style import BASELINE, BETTER, QUIET, WORSE, Picture, canvas, picture

_MOST_LABELS = 60  # beyond, names would overlap
_LOOK = {
    "baseline": (BASELINE, "D", "baseline"),
    "better": (BETTER, "^", "better (Holm, 5 %)"),
    "worse": (WORSE, "v", "worse (Holm, 5 %)"),
    "quiet": (QUIET, "o", "not distinguishable, or no verdict"),
}


def draw_arms(comparison: Comparison, name: str) -> Picture | None:
    """Four panels: linear, its difference, k-NN, its difference. None without a finished trial."""
    rows = [row for row in comparison.rows if row.estimates]
    if not rows:
        return None
    labelled = len(rows) <= _MOST_LABELS
    height = 1.6 + (0.27 * len(rows) if labelled else 0.27 * _MOST_LABELS)
    with canvas(11, height) as figure:
        axes = figure.subplots(1, 4, sharey=True)
        seen = dict.fromkeys(_look(row, metric) for row in rows for metric in METRICS)
        for column, (metric, label) in enumerate(METRICS.items()):
            for place, row in enumerate(rows):
                _accuracy(axes[2 * column], row, metric, place)
                _difference(axes[2 * column + 1], row, metric, place)
            axes[2 * column].set(title=label, xlabel="%")
            axes[2 * column + 1].set(title="difference from the baseline", xlabel="points")
            axes[2 * column + 1].axvline(0, color=BASELINE, linewidth=0.8)
        axes[0].set_yticks(range(len(rows)), [row.arm.label if labelled else "" for row in rows])
        axes[0].set_ylim(len(rows) - 0.5, -0.5)
        handles = [
            Line2D([], [], color=_LOOK[kind][0], marker=_LOOK[kind][1], linestyle="", label=_LOOK[kind][2])
            for kind in _LOOK
            if kind in seen
        ]
        handles.append(Line2D([], [], color="#BBBBBB", marker="|", linestyle="", label="one seed"))
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
        caption = (
            f"Accuracy on {comparison.dataset}, protocol {comparison.protocol}: mean over seeds with its 95 % interval "
            "(binomial where there is one seed), each seed, and the paired difference from the baseline with its own "
            "95 % interval."
        )
        return picture(figure, name, caption)


def _look(row: Row, metric: str) -> str:
    verdict = row.differences[metric].verdict if metric in row.differences else "quiet"
    return verdict if verdict in _LOOK else "quiet"


def _accuracy(axis: Any, row: Row, metric: str, place: int) -> None:
    if metric not in row.estimates:
        return
    one, (colour, marker, _) = row.estimates[metric], _LOOK[_look(row, metric)]
    seeds = list(row.values[metric].values())
    axis.plot(seeds, [place] * len(seeds), "|", color="#BBBBBB", markersize=9, zorder=1)
    axis.plot([one.low, one.high], [place, place], color=colour, linewidth=1.2)
    face = "white" if one.n == 1 else colour
    axis.plot([one.mean], [place], marker=marker, color=colour, markerfacecolor=face, markersize=5.5)


def _difference(axis: Any, row: Row, metric: str, place: int) -> None:
    one = row.differences.get(metric)
    if one is None or one.mean is None:
        return
    colour, marker, _ = _LOOK[_look(row, metric)]
    if one.low is not None:
        axis.plot([one.low, one.high], [place, place], color=colour, linewidth=1.2)
    face = "white" if one.low is None else colour
    axis.plot([one.mean], [place], marker=marker, color=colour, markerfacecolor=face, markersize=5.5)
