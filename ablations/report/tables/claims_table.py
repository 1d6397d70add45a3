"""The table of claims and their answers, for one study or for all."""

from collections.abc import Sequence

from cnnjepa.ablations.report.claims import Answered, answered, expectation
from cnnjepa.ablations.report.comparison import METRICS, Comparison
from cnnjepa.ablations.report.phrases import interval, p_value, signed
from cnnjepa.ablations.report.published_rows import DATASET_NAMES
from cnnjepa.ablations.report.statistics import POWER
from cnnjepa.ablations.report.tables.table import Cell, Column, Table, number_cell, text_cell

_HERE = (
    Column("claim", "claim", numeric=False),
    Column("metric", "metric", numeric=False),
    Column("answer", "answer", numeric=False),
    Column("difference", "difference", ("mean", "low", "high", "p_holm")),
    Column("n", "n", ("", "planned")),
    Column("resolved", "resolution"),
)
_REST = (
    Column("expected", "expected", numeric=False),
    Column("arm", "arm vs. baseline", ("", "baseline"), numeric=False),
    Column("study", "study", numeric=False, latex=False),
)
_TONES = {"holds": "better", "does not hold": "worse", "inconclusive": "quiet", "not tested": "quiet"}


def claims_table(comparisons: Sequence[Comparison], name: str, title: str) -> Table | None:
    """Return a table with two rows per claim, one per metric; None without claims. The comparisons share one
    protocol."""
    found = [one for comparison in comparisons for one in answered(comparison)]
    if not found:
        return None
    published_on: list[str | None] = list(dict.fromkeys(one.published_on for one in found if one.published_on))
    sets = published_on or [None]
    theirs = [Column("published" if len(sets) == 1 else f"published_{name}", f"published{_on(name)}") for name in sets]
    protocols = sorted({one.comparison.protocol for one in found})
    notes = (
        f"Differences are in percentage points of top-1 accuracy, protocol {' and '.join(protocols)}, paired over n "
        "seeds, with 95 % intervals. The paired t test with Holm's correction over the study decides “worse” and "
        "“better”; the interval decides “level” and “not below”.",
        "Published: the same difference in the published table, on the named images, with one seed per arm. “inside” "
        "and “outside” say whether it lies in our interval.",
        "Resolution: for “worse” and “better”, the smallest true difference that the test detects with "
        f"{100 * POWER:.0f} % probability; for “level” and “not below”, half the width of the interval, which must be "
        "less than the margin.",
    )
    columns = (*_HERE, *theirs, *_REST)
    return Table(name, title, columns, tuple(_row(one, sets) for one in found), notes)


def _on(published_set: str | None) -> str:
    return f", {DATASET_NAMES[published_set]}" if published_set else ""


def _row(one: Answered, sets: list[str | None]) -> tuple[Cell, ...]:
    found, base = one.difference, one.comparison.baseline
    assert base is not None  # without a baseline there are no answers
    runs = tuple(trial.page for row in (one.row, base) for trial in row.counted.values())
    values = {"mean": found.mean, "low": found.low, "high": found.high, "p_holm": found.p_holm}
    planned = len({t.record.seed for t in one.row.arm.trials} & {t.record.seed for t in base.arm.trials})
    between = interval(found.low, found.high, True) if found.low is not None else ""
    note = f"after Holm {p_value(found.p_holm)}" if found.p_holm is not None else ""
    return (
        text_cell(one.claim.says),
        text_cell(METRICS[one.metric]),
        Cell(one.answer, {"": one.answer}, one.answer, _TONES[one.answer]),  # type: ignore[arg-type]
        Cell(signed(found.mean), values, found.mean, note=note, runs=runs, below=between),
        Cell(
            str(found.n) if found.n == planned else f"{found.n} of {planned}",
            {"": found.n, "planned": planned},
            found.n,
        ),
        number_cell(one.resolved, 2),
        *[
            Cell(signed(one.published), {"": one.published}, one.published, below=_where(one))
            if name == one.published_on
            else Cell("–", {"": None}, None)
            for name in sets
        ],
        text_cell(expectation(one.claim)),
        Cell(
            f"{one.row.arm.label} vs. {base.arm.label}",
            {"": one.row.arm.label, "baseline": base.arm.label},
            one.row.arm.label,
        ),
        text_cell(one.comparison.study.name),
    )


def _where(one: Answered) -> str:
    """Return `inside` or `outside`: whether the published difference lies in the interval. The text is empty if either
    is unknown."""
    low, high = one.difference.low, one.difference.high
    if one.published is None or low is None or high is None:
        return ""
    return "inside" if low <= one.published <= high else "outside"
