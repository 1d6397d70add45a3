"""Comparison of encoders on the tasks of `cnnjepa evaluate`: one table per set, with differences from the first
encoder, paired over validation images or over draws of labelled images."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cnnjepa.ablations.report.statistics import Difference, corrected, paired_difference, verdict_of
from cnnjepa.evaluation.overlap import counted, gap_of_draws
from cnnjepa.evaluation.run import Evaluated
from cnnjepa.schemas.evaluation_result import EvaluationFigure

_Counts = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class EncoderCell:
    """One figure of one encoder."""

    figure: EvaluationFigure
    difference: Difference | None
    """Difference from the first encoder; None for the first encoder itself."""


@dataclass(frozen=True)
class FigureRow:
    """One figure of all encoders."""

    task: str
    name: str
    cells: tuple[EncoderCell | None, ...]
    """In the order of the encoders; None if an encoder has no such figure."""


@dataclass(frozen=True)
class SetTable:
    """All figures on one set."""

    dataset: str
    classes: int
    train_images: int
    val_images: int
    encoders: tuple[str, ...]
    rows: tuple[FigureRow, ...]
    notes: tuple[str, ...]


def set_tables(evaluated: Sequence[Evaluated]) -> list[SetTable]:
    """Return one table per set, in the order of the results. Verdicts of a table share the 5 % level (Holm)."""
    by_set: dict[str, list[Evaluated]] = {}
    for one in evaluated:
        by_set.setdefault(one.result.dataset_fingerprint, []).append(one)
    return [_table(found) for found in by_set.values()]


def _table(found: list[Evaluated]) -> SetTable:
    labels = _labels(found)
    keys = list(dict.fromkeys((one.result.task, name) for one in found for name in one.result.figures))
    place_of = {fingerprint: place for place, fingerprint in enumerate(labels)}
    rows = []
    for task, name in keys:
        cells: list[EncoderCell | None] = [None] * len(labels)
        having = [one for one in found if one.result.task == task and name in one.result.figures]
        first = next((one for one in having if place_of[one.result.encoder_fingerprint] == 0), None)
        for one in having:
            difference = paired(one, first, name) if first and one is not first else None
            cells[place_of[one.result.encoder_fingerprint]] = EncoderCell(one.result.figures[name], difference)
        rows.append(FigureRow(task, name, tuple(cells)))
    result = found[0].result
    notes = (
        f"{one.result.task}, {one.result.encoder}: {note}" if len(labels) > 1 else f"{one.result.task}: {note}"
        for one in found
        for note in one.result.notes
    )
    return SetTable(
        result.dataset, result.classes, result.train_images, result.val_images, tuple(labels.values()),
        tuple(_with_verdicts(rows)), tuple(dict.fromkeys(notes)),
    )  # fmt: skip


def _labels(found: list[Evaluated]) -> dict[str, str]:
    """Return the encoders' names by fingerprint. Equal names are numbered."""
    names = {one.result.encoder_fingerprint: one.result.encoder for one in found}
    seen, labels = Counter[str](), dict[str, str]()
    for fingerprint, name in names.items():
        seen[name] += 1
        labels[fingerprint] = f"{name} ({seen[name]})" if seen[name] > 1 else name
    return labels


def paired(one: Evaluated, first: Evaluated, name: str) -> Difference:
    """Return the difference of a figure from that of the `first` encoder, in percentage points, with the paired t test
    over images or draws; mean IoUs are compared over the same draws of images with replacement. There is no test for
    figures without either, or of different images."""
    ours, theirs = one.result.figures[name], first.result.figures[name]
    mean = ours.value - theirs.value
    if (counts := _counts(one, first, name)) is not None:
        images = counts[0][0].shape[0]
        if all(np.array_equal(a, b) for a, b in zip(*counts, strict=True)):
            return Difference("indistinguishable", images, mean)
        low, high, p = gap_of_draws(*counts)
        return Difference(verdict_of(p, mean), images, mean, low, high, p)
    pairs = _pairs(one, first, name)
    if pairs is None:
        return Difference("no test", 0, mean)
    return replace(paired_difference(*pairs), mean=mean)


def _counts(one: Evaluated, first: Evaluated, name: str) -> tuple[_Counts, _Counts] | None:
    """Return (intersections, unions) of the same images for both encoders; None for a figure without them, or of
    different images."""
    sides = []
    for side in (one, first):
        found = [side.per_image.get(key) for key in counted(name)]
        if found[0] is None or found[1] is None:
            return None
        sides.append((found[0].astype(np.float64), found[1].astype(np.float64)))
    return (sides[0], sides[1]) if sides[0][0].shape == sides[1][0].shape else None


def _pairs(one: Evaluated, first: Evaluated, name: str) -> tuple[np.ndarray, np.ndarray] | None:
    draws = [np.asarray(side.result.figures[name].draws, np.float64) for side in (one, first)]
    images = [np.asarray(side.per_image.get(name, ()), np.float64) for side in (one, first)]
    for values in (draws, images):
        if values[0].size > 1 and values[0].size == values[1].size:
            return values[0], values[1]
    return None


def _with_verdicts(rows: list[FigureRow]) -> list[FigureRow]:
    """Return the rows with verdicts that are corrected for the number of comparisons in the table."""
    places = [
        (at, place)
        for at, row in enumerate(rows)
        for place, cell in enumerate(row.cells)
        if cell and cell.difference and cell.difference.verdict != "no test"
    ]
    differences = []
    for at, place in places:
        cell = rows[at].cells[place]
        assert cell and cell.difference
        differences.append(cell.difference)
    cells = [list(row.cells) for row in rows]
    for (at, place), difference in zip(places, corrected(differences), strict=True):
        cell = cells[at][place]
        assert cell
        cells[at][place] = replace(cell, difference=_oriented(difference, cell.figure))
    return [replace(row, cells=tuple(of_row)) for row, of_row in zip(rows, cells, strict=True)]


def _oriented(difference: Difference, figure: EvaluationFigure) -> Difference:
    """Return the difference with the verdict of a figure for which lower is better."""
    if figure.higher_is_better or difference.verdict not in ("better", "worse"):
        return difference
    return replace(difference, verdict="worse" if difference.verdict == "better" else "better")
