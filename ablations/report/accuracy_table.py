"""The table people come for: accuracy of every arm with its interval, its difference from the baseline and verdict."""

from cnnjepa.ablations.report.comparison import METRICS, Comparison, Row
from cnnjepa.ablations.report.phrases import (
    PROTOCOL_MEANING,
    SINGLE,
    accuracy,
    interval,
    listed,
    p_value,
    signed,
    verdict,
)
from cnnjepa.ablations.report.published import DATASET_NAMES, Beside, published_tables
from cnnjepa.ablations.report.statistics import LEAST_FOR_BOOTSTRAP, Agreement, Estimate
from cnnjepa.ablations.report.table import Cell, Column, Table

_ESTIMATE = ("mean", "sd", "low", "high", "interval")
_DIFFERENCE = ("mean", "low", "high", "p", "p_holm", "pairs", "bootstrap_low", "bootstrap_high")
_SHORT = {"linear_top1": "linear", "knn_top1": "k-NN"}


def accuracy_table(comparison: Comparison, name: str) -> Table:
    """One row an arm. Linear and k-NN of a row are of the same runs."""
    columns = [Column("arm", "arm", numeric=False), Column("n", "n", ("", "planned"))]
    for key, label in (("linear_top1", "linear top-1"), ("knn_top1", "k-NN top-1")):
        columns += [
            Column(key, f"{label}, %", _ESTIMATE),
            Column(f"{key}_interval", "95 % interval", (), latex=True),
            Column(f"{key}_difference", f"{_SHORT[key]} − baseline", _DIFFERENCE),
            Column(f"{key}_verdict", f"{_SHORT[key]} verdict", numeric=False),
        ]
    columns += [
        Column("linear_top5", "linear top-5, %", _ESTIMATE, latex=False),
        Column("knn_top5", "k-NN top-5, %", _ESTIMATE, latex=False),
    ]
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
    rows = tuple(_row(row, with_published) for row in comparison.rows)
    caption = (
        f"{comparison.study.name}: accuracy on {comparison.dataset}, protocol {comparison.protocol} "
        f"({PROTOCOL_MEANING[comparison.protocol]})"
    )
    return Table(name, caption, tuple(columns), rows, tuple(_notes(comparison)))


def _row(row: Row, with_published: bool) -> tuple[Cell, ...]:
    runs = tuple(trial.short for trial in row.counted.values())
    n, planned = len(row.counted), len(row.arm.trials)
    cells = [
        Cell(row.arm.label, {"": row.arm.label}, row.arm.label, "strong" if row.arm.baseline else "", runs=runs),
        Cell(str(n) if n == planned else f"{n} of {planned}", {"": n, "planned": planned}, n),
    ]
    for metric in METRICS:
        one = row.estimates.get(metric)
        cells += [
            estimate_cell(one, runs, row.values.get(metric)),
            _interval_cell(one),
            *_difference_cells(row, metric),
        ]
    cells += [estimate_cell(row.estimates.get(name), runs) for name in ("linear_top5", "knn_top5")]
    if with_published:
        for metric in METRICS:
            cells += published_cells(row.published, row, metric)
    problems = "; ".join(row.problems)
    cells.append(Cell(problems or "–", {"": problems}, problems or None, "bad" if problems else ""))
    cells.append(runs_cell(row))
    return tuple(cells)


def estimate_cell(one: Estimate | None, runs: tuple[str, ...], by_seed: dict[int, float] | None = None) -> Cell:
    """Mean ± standard deviation, with the interval and the seeds' own figures in the note."""
    if one is None:
        return Cell("–", {}, None, "quiet")
    values = {"mean": one.mean, "sd": one.sd, "low": one.low, "high": one.high, "interval": one.kind}
    over = "over seeds, t" if one.kind == "t" else "one run over its validation images, Wilson"
    seeds = ", ".join(f"seed {seed}: {value:.2f}" for seed, value in (by_seed or {}).items())
    note = f"95 % interval {interval(one.low, one.high)} ({over}){'; ' + seeds if seeds else ''}"
    return Cell(accuracy(one), values, one.mean, note=note, runs=runs)


def _interval_cell(one: Estimate | None) -> Cell:
    return Cell("–") if one is None else Cell(interval(one.low, one.high), {}, one.low, "quiet")


def _difference_cells(row: Row, metric: str) -> list[Cell]:
    one = row.differences.get(metric)
    if one is None:
        return [Cell("–"), Cell("no baseline here", {"": "no baseline here"}, None, "quiet")]
    values = {
        "mean": one.mean, "low": one.low, "high": one.high, "p": one.p, "p_holm": one.p_holm, "pairs": one.n,
        "bootstrap_low": one.bootstrap[0] if one.bootstrap else None,
        "bootstrap_high": one.bootstrap[1] if one.bootstrap else None,
    }  # fmt: skip
    text, note = "–", ""
    if one.mean is not None:
        text = signed(one.mean) + (f" {interval(one.low, one.high, True)}" if one.low is not None else "")
        note = f"{p_value(one.p)}, after Holm {p_value(one.p_holm)}, {one.n} pairs"
    if one.bootstrap:
        note += f"; bootstrap {interval(*one.bootstrap, True)}"
    tone = one.verdict if one.verdict in ("better", "worse") else "quiet"
    said = verdict(one)
    if one.p_holm is not None:
        said += f" ({p_value(one.p_holm)})"
    return [
        Cell(text, values, one.mean, note=note),
        Cell(said, {"": said}, said, tone),
    ]


def published_cells(beside: Beside | None, row: Row, metric: str) -> list[Cell]:
    """The published number, and ours less it, with a star where the setting is another."""
    if beside is None:
        return [Cell("–"), Cell("–")]
    published = getattr(beside.row, metric)
    ours = row.estimates.get(metric)
    gap = ours.mean - published if ours else None
    note = f"another setting: {beside.note}" if beside.note else ""
    return [
        Cell(f"{published:.2f}", {"": published}, published, note=beside.row.note),
        Cell(signed(gap) + ("*" if note and gap is not None else ""), {"": gap}, gap, "quiet", note),
    ]


def runs_cell(row: Row) -> Cell:
    """`0:3f2a… 1:9c1b…`: which trials the row's numbers come from."""
    text = " ".join(f"{seed}:{trial.short}" for seed, trial in sorted(row.counted.items()))
    return Cell(text or "–", {"": text}, text or None, "quiet", runs=tuple(t.short for t in row.counted.values()))


def _notes(comparison: Comparison) -> list[str]:
    base = comparison.baseline
    notes = ["± is the standard deviation over seeds; the interval is Student's t for the mean over seeds."]
    if any(e.kind == "wilson" for row in comparison.rows for e in row.estimates.values()):
        notes.append(
            f"{SINGLE} One seed: the interval is binomial (Wilson), of that run over its validation images; it says "
            "nothing about other seeds, so no verdict is given."
        )
    if base:
        notes.append(
            f"Differences are from {base.arm.label}, in points, paired over seeds, with the 95 % t interval of each "
            f"alone. {_tested(comparison.comparisons)}"
        )
    else:
        notes.append("The baseline arm is on other images, so nothing is compared here.")
    if any(d.bootstrap for row in comparison.rows for d in row.differences.values()):
        notes.append(f"From n = {LEAST_FOR_BOOTSTRAP} the CSV has BCa bootstrap intervals of the differences too.")
    notes += _floor_notes(comparison)
    notes += _published_notes(comparison)
    notes += [agreement_sentence(metric, one) for metric, one in comparison.agreements.items()]
    return notes


def _tested(comparisons: int) -> str:
    if not comparisons:
        return "No difference could be tested."
    over = f"the {comparisons} comparisons" if comparisons > 1 else "the one comparison"
    return f"Verdicts are of the paired t test after Holm's correction over {over} of this table (p given)."


def _floor_notes(comparison: Comparison) -> list[str]:
    """Ranges over all counted runs of what is reached without pretraining."""
    parts = []
    for floor, label in (("untrained", "the untrained encoder"), ("pixels", "raw pixels")):
        for metric, short in _SHORT.items():
            reached = [
                value
                for row in comparison.rows
                for trial in row.counted.values()
                if trial.result and (probes := getattr(trial.result.floors, floor))
                if (figures := getattr(probes, comparison.protocol))
                if (value := getattr(figures, metric)) is not None
            ]
            if reached:
                low, high = min(reached), max(reached)
                parts.append(f"{label} {short} {low:.1f}" + (f" to {high:.1f}" if high - low >= 0.05 else ""))
    return [f"Floors, top-1: {listed(parts)}."] if parts else []


def _published_notes(comparison: Comparison) -> list[str]:
    name = comparison.study.study.published
    if name is None:
        return []
    if comparison.protocol != "published":
        return ["The published numbers are of protocol published; they stand in that table only."]
    table = published_tables()[name]
    notes = [f"Published: {table.source_in_words}; one seed each."]
    differing: dict[str, list[Row]] = {}
    for row in comparison.rows:
        if row.published and row.published.note:
            differing.setdefault(row.published.differs, []).append(row)
    for differs, rows in differing.items():
        which = "all arms" if len(rows) == len(comparison.rows) else listed([row.arm.label for row in rows])
        counts = sorted({row.published.more for row in rows if row.published})
        more = f"and {counts[0]}" + (f" to {counts[-1]}" if len(counts) > 1 else "") + " other settings"
        notes.append(
            f"* Not the published setting ({which}): {'; '.join(filter(None, (differs, more)))}. The difference "
            "compares unlike things."
        )
    here = [row.published.row for row in comparison.rows if row.published]
    absent = [f"{row.label} ({DATASET_NAMES[row.dataset]})" for row in table.rows if row not in here]
    if absent:
        notes.append(f"Published but not in this study: {listed(absent)}.")
    return notes


def agreement_sentence(metric: str, one: Agreement) -> str:
    """Kendall's τ with its exact p, and whether so few arms could show anything."""
    label = _SHORT[metric]
    if one.tau is None:
        return f"Our {label} ordering cannot be compared with the published one: all values are equal on one side."
    p = "not exact with ties" if one.p is None else f"{one.p:.3f}"
    text = (
        f"Ordering by {label} against the published one, {one.arms} arms: Kendall τ = {signed(one.tau)}, exact p = {p}"
    )
    if not one.can_reach:
        text += f"; {one.arms} arms cannot reach significance (perfect agreement gives p = {one.least_p:.3f})"
    return text + "."
