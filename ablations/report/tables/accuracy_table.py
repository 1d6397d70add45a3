"""The accuracy table: every arm's accuracy with its interval, its difference from the baseline, and its verdict."""

from collections.abc import Iterable

from cnnjepa.ablations.report.comparison import METRICS, Comparison, Row
from cnnjepa.ablations.report.phrases import (
    PROTOCOL_MEANING,
    accuracy,
    interval,
    p_value,
    signed,
    verdict,
)
from cnnjepa.ablations.report.published_rows import MatchedRow
from cnnjepa.ablations.report.statistics import AccuracyEstimate
from cnnjepa.ablations.report.tables.accuracy_notes import accuracy_notes
from cnnjepa.ablations.report.tables.table import Cell, Column, Table

_ESTIMATE = ("mean", "sd", "low", "high", "interval")
_DIFFERENCE = ("mean", "low", "high", "p", "p_holm", "pairs", "bootstrap_low", "bootstrap_high")
TOP5 = {"linear_top5": "linear top-5, %", "knn_top5": "k-NN top-5, %"}
_SHORT = {"linear_top1": "linear", "knn_top1": "k-NN"}


def accuracy_table(comparison: Comparison, name: str) -> Table:
    """Return a table with one row per arm. Linear and k-NN of a row come from the same runs."""
    columns = [Column("arm", "arm", numeric=False), Column("n", "n", ("", "planned"))]
    for key, label in (("linear_top1", "linear top-1"), ("knn_top1", "k-NN top-1")):
        columns += [
            Column(key, f"{label}, %", _ESTIMATE),
            Column(f"{key}_difference", f"{_SHORT[key]} − baseline", _DIFFERENCE),
            Column(f"{key}_verdict", f"{_SHORT[key]} verdict", numeric=False),
        ]
    top5 = TOP5 if tells_top5(comparison.rows) else {}
    columns += [Column(key, label, _ESTIMATE, latex=False) for key, label in top5.items()]
    with_published = any(row.published for row in comparison.rows)
    if with_published:
        for key in METRICS:
            columns += [
                Column(f"{key}_published", f"{_SHORT[key]} published"),
                Column(f"{key}_minus_published", f"{_SHORT[key]} ours − published"),
            ]
    columns += [
        Column("state", "not counted", numeric=False, latex=False),
        Column("runs", "runs (seed:hash)", numeric=False, latex=False),
    ]
    rows = tuple(_row(row, top5, with_published) for row in comparison.rows)
    caption = (
        f"{comparison.study.name}: accuracy on {comparison.dataset}, protocol {comparison.protocol} "
        f"({PROTOCOL_MEANING[comparison.protocol]})"
    )
    return Table(name, caption, tuple(columns), rows, tuple(accuracy_notes(comparison)))


def tells_top5(rows: Iterable[Row]) -> bool:
    """Return whether top-5 accuracies say anything: with five classes or fewer, every one is 100 %."""
    means = [row.estimates[key].mean for row in rows for key in TOP5 if key in row.estimates]
    return not means or any(mean < 100 for mean in means)


def _row(row: Row, top5: Iterable[str], with_published: bool) -> tuple[Cell, ...]:
    runs = tuple(trial.page for trial in row.counted.values())
    n, planned = len(row.counted), len(row.arm.trials)
    cells = [
        Cell(row.arm.label, {"": row.arm.label}, row.arm.label, "strong" if row.arm.baseline else "", runs=runs),
        Cell(str(n) if n == planned else f"{n} of {planned}", {"": n, "planned": planned}, n),
    ]
    for metric in METRICS:
        one = row.estimates.get(metric)
        cells += [estimate_cell(one, runs, row.values.get(metric)), *_difference_cells(row, metric)]
    cells += [estimate_cell(row.estimates.get(name), runs) for name in top5]
    if with_published:
        for metric in METRICS:
            cells += published_cells(row.published, row, metric)
    problems = "; ".join(row.problems)
    cells.append(Cell(problems or "–", {"": problems}, problems or None, "bad" if problems else ""))
    cells.append(runs_cell(row))
    return tuple(cells)


def estimate_cell(one: AccuracyEstimate | None, runs: tuple[str, ...], by_seed: dict[int, float] | None = None) -> Cell:
    """Return a cell with mean ± standard deviation; its note has the interval and the accuracy of each seed."""
    if one is None:
        return Cell("–", {}, None, "quiet")
    values = {"mean": one.mean, "sd": one.sd, "low": one.low, "high": one.high, "interval": one.kind}
    over = "over seeds, t" if one.kind == "t" else "one run over its validation images, Wilson"
    seeds = ", ".join(f"seed {seed}: {value:.2f}" for seed, value in (by_seed or {}).items())
    note = f"95 % interval {interval(one.low, one.high)} ({over}){'; ' + seeds if seeds else ''}"
    return Cell(accuracy(one), values, one.mean, note=note, runs=runs, below=interval(one.low, one.high))


def _difference_cells(row: Row, metric: str) -> list[Cell]:
    one = row.differences.get(metric)
    if one is None:
        return [Cell("–"), Cell("no baseline here", {"": "no baseline here"}, None, "quiet")]
    values = {
        "mean": one.mean, "low": one.low, "high": one.high, "p": one.p, "p_holm": one.p_holm, "pairs": one.n,
        "bootstrap_low": one.bootstrap[0] if one.bootstrap else None,
        "bootstrap_high": one.bootstrap[1] if one.bootstrap else None,
    }  # fmt: skip
    note = ""
    if one.mean is not None:
        note = f"{p_value(one.p)}, after Holm {p_value(one.p_holm)}, {one.n} pairs"
    if one.bootstrap:
        note += f"; bootstrap {interval(*one.bootstrap, True)}"
    tone = one.verdict if one.verdict in ("better", "worse") else "quiet"
    said = verdict(one)
    between = interval(one.low, one.high, True) if one.low is not None else ""
    return [
        Cell(signed(one.mean), values, one.mean, note=note, below=between),
        Cell(said, {"": said}, said, tone, below=p_value(one.p_holm) if one.p_holm is not None else ""),
    ]


def published_cells(match: MatchedRow | None, row: Row, metric: str) -> list[Cell]:
    """Return the published number and our difference from it, with a star if the settings differ."""
    if match is None:
        return [Cell("–"), Cell("–")]
    published = getattr(match.row, metric)
    ours = row.estimates.get(metric)
    gap = ours.mean - published if ours else None
    note = f"other settings: {match.note}" if match.note else ""
    return [
        Cell(f"{published:.2f}", {"": published}, published, note=match.row.note),
        Cell(signed(gap) + ("*" if note and gap is not None else ""), {"": gap}, gap, "quiet", note),
    ]


def runs_cell(row: Row) -> Cell:
    """Return the trials behind the row's numbers, as `0:3f2a… 1:9c1b…` (seed:hash)."""
    text = " ".join(f"{seed}:{trial.short}" for seed, trial in sorted(row.counted.items()))
    return Cell(text or "–", {"": text}, text or None, "quiet", runs=tuple(t.page for t in row.counted.values()))
