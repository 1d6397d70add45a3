"""Accuracy along one numeric axis of a study: predictor depth, kernel size, mask ratio, number of blocks."""

from typing import Any

from matplotlib.ticker import MaxNLocator

from cnnjepa.ablations.arms import unmistakable
from cnnjepa.ablations.report.comparison import METRICS, Comparison, Row
from cnnjepa.ablations.report.figures.style import MARKERS, MOST_SERIES, PALETTE, Picture, canvas, picture
from cnnjepa.ablations.report.figures.text import figure_text, legend_columns
from cnnjepa.ablations.report.published_rows import CONFIG_PATH, DATASET_NAMES, PublishedRow, published_tables
from cnnjepa.schemas.overrides import full_path


def numeric_axes(comparison: Comparison) -> list[str]:
    """Return the axes of the study that have at least two values, all of them numbers."""
    axes = comparison.study.study.axes
    return [name for name, values in axes.items() if isinstance(values, tuple) and _numbers(values)]


def short_names(comparison: Comparison) -> dict[str, str]:
    """Return numeric axis → the last part of its path, or the whole path if two axes end alike; for file names."""
    named = numeric_axes(comparison)
    ends = [axis.rsplit(".")[-1] for axis in named]
    return {axis: end if ends.count(end) == 1 else axis for axis, end in zip(named, ends, strict=True)}


def _numbers(values: tuple[Any, ...]) -> bool:
    return len(values) > 1 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def series_along(comparison: Comparison, axis: str) -> dict[str, list[tuple[float, Row]]]:
    """Return one line per combination of the other axes' choices: its name → (value on the axis, arm), ascending."""
    lines: dict[str, list[tuple[float, Row]]] = {}
    names: dict[str, str] = {}
    for row in comparison.rows:
        if row.estimates:
            others = {key: choice for key, choice in row.arm.choices.items() if key != axis}
            line = ", ".join(unmistakable(key, choice) for key, choice in others.items())
            lines.setdefault(line, []).append((float(row.arm.choices[axis]), row))
            names[line] = ", ".join(f"{key.rsplit('.')[-1]}={choice}" for key, choice in others.items())
    if len(set(names.values())) < len(names):  # the text 1 and the number 1, for example
        names = {line: line for line in lines}
    return {names[line]: sorted(points, key=lambda point: point[0]) for line, points in lines.items()}


def published_along(comparison: Comparison, axis: str) -> list[tuple[float, PublishedRow]]:
    """Return (value, row) of the study's published table along the same axis, on the data set that our ordering is
    compared with. The list is empty if the table has another axis."""
    name, ordered_on = comparison.study.study.published, comparison.ordered_on
    if name is None or ordered_on is None:
        return []
    path = full_path(axis, "axis")
    return sorted(
        (
            (float(value), row)
            for row in published_tables()[name].rows
            for short, value in row.arm.items()
            if row.dataset == ordered_on and CONFIG_PATH[short] == path
        ),
        key=lambda point: point[0],
    )


def draw_axis(comparison: Comparison, axis: str, name: str) -> Picture | None:
    """Draw linear and k-NN accuracy along the axis: ours above, the published below on its own scale. The settings
    differ, so only the shapes compare. Return None with fewer than two points, or with more lines than can be
    distinguished."""
    series = series_along(comparison, axis)
    if not series or len(series) > MOST_SERIES or max(map(len, series.values())) < 2:
        return None
    published = published_along(comparison, axis)
    rows = 2 if len(published) > 1 else 1
    label = full_path(axis, "axis").removeprefix("method.")
    with canvas(8, 0.9 + 2.5 * rows) as figure:
        panels = figure.subplots(rows, 2, squeeze=False, sharex=True)
        for column, (metric, title) in enumerate(METRICS.items()):
            _ours(panels[0][column], series, metric)
            panels[0][column].set_title(f"{title}, {figure_text(comparison.dataset)}")
            if rows == 2:
                values = [value for value, _ in published]
                figures = [getattr(row, metric) for _, row in published]
                panels[1][column].plot(values, figures, "--", marker="D", color="#555555", markerfacecolor="white")
                where = DATASET_NAMES[published[0][1].dataset]
                panels[1][column].set_title(f"{title}, published ({where}, one seed each)")
            for panel in panels[:, column]:
                panel.set_ylabel("%")
            panels[-1][column].set_xlabel(label)
            ticks = sorted({value for points in series.values() for value, _ in points} | {v for v, _ in published})
            if len(ticks) <= 10 and all(value == int(value) for value in ticks):
                panels[-1][column].xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(series) > 1:
            handles, names = panels[0][0].get_legend_handles_labels()
            figure.legend(handles, names, loc="outside lower center", ncols=legend_columns(names, 8))
        caption = (
            f"Accuracy against {label}, protocol {comparison.protocol}; bars are 95 % intervals of the mean over seeds "
            "(hollow and binomial for one seed)."
        )
        if rows == 2:
            caption += " The published numbers have other settings and their own scale: compare only the shapes."
        return picture(figure, name, caption)


def _ours(panel: Any, series: dict[str, list[tuple[float, Row]]], metric: str) -> None:
    widest = max(value for points in series.values() for value, _ in points)
    least = min(value for points in series.values() for value, _ in points)
    step = 0.012 * (widest - least)
    for number, (name, points) in enumerate(series.items()):
        shown = [(value + step * (number - (len(series) - 1) / 2), row.estimates[metric]) for value, row in points]
        colour, marker = PALETTE[number], MARKERS[number]
        panel.errorbar(
            [x for x, _ in shown],
            [one.mean for _, one in shown],
            [[one.mean - one.low for _, one in shown], [one.high - one.mean for _, one in shown]],
            color=colour, marker=marker, capsize=3, linewidth=1.2, markersize=5, label=figure_text(name),
        )  # fmt: skip
        single = [(x, one.mean) for x, one in shown if one.n == 1]
        panel.plot(
            [x for x, _ in single], [y for _, y in single], linestyle="", marker=marker, color=colour,
            markerfacecolor="white", markersize=5,
        )  # fmt: skip
