"""Picture of every arm's accuracy with its interval and seeds, and of its difference from the baseline."""

from typing import Any

from matplotlib.lines import Line2D

from cnnjepa.ablations.report.comparison import METRICS, Comparison, Row
from cnnjepa.ablations.report.figures.style import BASELINE, BETTER, QUIET, WORSE, Picture, canvas, picture
from cnnjepa.ablations.report.figures.text import figure_text

_MOST_LABELS = 60  # names of more arms would overlap
_LOOK = {
    "baseline": (BASELINE, "D", "baseline"),
    "better": (BETTER, "^", "better (Holm, 5 %)"),
    "worse": (WORSE, "v", "worse (Holm, 5 %)"),
    "quiet": (QUIET, "o", "not distinguishable, or no verdict"),
}


def draw_arms(comparison: Comparison, name: str) -> Picture | None:
    """Draw four panels: linear, its difference, k-NN, its difference. Return None without a finished trial."""
    rows = [row for row in comparison.rows if row.estimates]
    if not rows:
        return None
    labelled = len(rows) <= _MOST_LABELS
    height = 1.6 + (0.27 * len(rows) if labelled else 0.27 * _MOST_LABELS)
    with canvas(11, height) as figure:
        axes = figure.subplots(1, 4, sharey=True)
        seen = dict.fromkeys(_look(row, metric) for row in rows for metric in METRICS)
        for column, (metric, label) in enumerate(METRICS.items()):
            _accuracies(axes[2 * column], rows, metric)
            _differences(axes[2 * column + 1], rows, metric)
            axes[2 * column].set(title=label, xlabel="%")
            axes[2 * column + 1].set(title="difference from the baseline", xlabel="points")
            axes[2 * column + 1].axvline(0, color=BASELINE, linewidth=0.8)
        axes[0].set_yticks(*((range(len(rows)), [figure_text(row.arm.label) for row in rows]) if labelled else ([],)))
        if not labelled:
            axes[0].set_ylabel(f"{len(rows)} arms, in the study's order")
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
            "(binomial for one seed), each seed, and the paired difference from the baseline with its own "
            "95 % interval."
        )
        return picture(figure, name, caption)


def _look(row: Row, metric: str) -> str:
    verdict = row.differences[metric].verdict if metric in row.differences else "quiet"
    return verdict if verdict in _LOOK else "quiet"


def _accuracies(axis: Any, rows: list[Row], metric: str) -> None:
    seeds = [(value, n) for n, row in enumerate(rows) for value in row.values.get(metric, {}).values()]
    axis.plot([value for value, _ in seeds], [n for _, n in seeds], "|", color="#BBBBBB", markersize=9, zorder=1)
    known = [(n, row, row.estimates[metric]) for n, row in enumerate(rows) if metric in row.estimates]
    _marks(axis, [(n, _look(row, metric), one.mean, (one.low, one.high), one.n > 1) for n, row, one in known])


def _differences(axis: Any, rows: list[Row], metric: str) -> None:
    marks: list[_Mark] = []
    for place, row in enumerate(rows):
        one = row.differences.get(metric)
        if one is not None and one.mean is not None:
            between = (one.low, one.high) if one.low is not None and one.high is not None else None
            marks.append((place, _look(row, metric), one.mean, between, between is not None))
    _marks(axis, marks)


_Mark = tuple[int, str, float, tuple[float, float] | None, bool]
"""(row, look, value, interval, filled)."""


def _marks(axis: Any, marks: list[_Mark]) -> None:
    """Draw all markers of one style in one call: a picture of a hundred arms would otherwise take seconds."""
    for kind, (colour, marker, _) in _LOOK.items():
        here = [mark for mark in marks if mark[1] == kind]
        between = [(place, *interval) for place, _, _, interval, _ in here if interval]
        if between:
            axis.hlines(*map(list, zip(*between, strict=True)), color=colour, linewidth=1.2)
        for filled, face in ((True, colour), (False, "white")):
            points = [(value, place) for place, _, value, _, full in here if full == filled]
            axis.plot(
                [value for value, _ in points], [place for _, place in points], linestyle="", marker=marker,
                color=colour, markerfacecolor=face, markersize=5.5,
            )  # fmt: skip
