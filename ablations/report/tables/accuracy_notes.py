"""The sentences below an accuracy table: the meaning of its numbers, floors, the published setting, agreement."""

from cnnjepa.ablations.report.comparison import Comparison, Row
from cnnjepa.ablations.report.phrases import SINGLE, listed, signed
from cnnjepa.ablations.report.published_rows import DATASET_NAMES, published_tables
from cnnjepa.ablations.report.statistics import LEAST_FOR_BOOTSTRAP, Agreement

_SHORT = {"linear_top1": "linear", "knn_top1": "k-NN"}


def accuracy_notes(comparison: Comparison) -> list[str]:
    """Return the notes that a reader needs to interpret the table's numbers."""
    base = comparison.baseline
    notes = ["± is the standard deviation over seeds; the interval is Student's t for the mean over seeds."]
    if any(e.kind == "wilson" for row in comparison.rows for e in row.estimates.values()):
        notes.append(
            f"{SINGLE} One seed: the interval is binomial (Wilson) over the validation images of that run. It does not "
            "cover differences between seeds, so there is no verdict."
        )
    if base:
        notes.append(
            f"Differences from {base.arm.label} are in points and paired over seeds, each with its own 95 % t "
            f"interval. {_tested(comparison.comparisons)}"
        )
    else:
        notes.append("The baseline arm uses other images, so there is no comparison here.")
    if any(d.bootstrap for row in comparison.rows for d in row.differences.values()):
        notes.append(f"From n = {LEAST_FOR_BOOTSTRAP} on, the CSV also has BCa bootstrap intervals of the differences.")
    notes += _floor_notes(comparison)
    notes += _published_notes(comparison)
    notes += [agreement_sentence(metric, one, comparison.ordered_on) for metric, one in comparison.agreements.items()]
    return notes


def _tested(comparisons: int) -> str:
    if not comparisons:
        return "No difference could be tested."
    over = f"the {comparisons} comparisons" if comparisons > 1 else "the one comparison"
    return f"Verdicts: paired t test with Holm's correction over {over} of this table; p is the corrected value."


_FLOORS = (("untrained", "the untrained encoder"), ("warm_start", "the warm start"), ("pixels", "raw pixels"))


def _floor_notes(comparison: Comparison) -> list[str]:
    """Return the range of accuracy without pretraining over all counted runs."""
    parts = []
    for floor, label in _FLOORS:
        for metric, short in _SHORT.items():
            reached = [
                value
                for row in comparison.rows
                for trial in row.counted.values()
                if trial.result and (probes := getattr(trial.result.first_set.floors, floor))
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
        return ["The published numbers use protocol published: see that table and, for differences, the claims."]
    table = published_tables()[name]
    there = [row for row in table.rows if row.dataset == comparison.published_set]
    if not there:
        names = listed([DATASET_NAMES[dataset] for dataset in dict.fromkeys(row.dataset for row in table.rows)])
        return [
            f"No published accuracies are shown: they were measured on {names}, these images are {comparison.dataset}, "
            f"and accuracies on different images are not comparable. Source of the published ordering: "
            f"{table.source_in_words}."
        ]
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
            f"* Settings that differ from the published ones ({which}): {'; '.join(filter(None, (differs, more)))}. "
            "The differences marked with * do not compare like with like."
        )
    here = [row.published.row for row in comparison.rows if row.published]
    absent = [f"{row.label} ({DATASET_NAMES[row.dataset]})" for row in there if row not in here]
    if absent:
        notes.append(f"Published but not in this study: {listed(absent)}.")
    return notes


def agreement_sentence(metric: str, one: Agreement, ordered_on: str | None) -> str:
    """Return a sentence with Kendall's τ, its exact p, the data set of the published ordering, and, for too few arms,
    that they cannot reach significance."""
    label = _SHORT[metric]
    theirs = "the published one" + (f" on {DATASET_NAMES[ordered_on]}" if ordered_on else "")
    if one.tau is None:
        return f"Our {label} ordering cannot be compared with {theirs}: all values are equal on one side."
    p = "not exact with ties" if one.p is None else f"{one.p:.3f}"
    text = f"Ordering by {label} against {theirs}, {one.arms} arms: Kendall τ = {signed(one.tau)}, exact p = {p}"
    if not one.can_reach:
        text += f"; {one.arms} arms cannot reach significance (perfect agreement gives p = {one.least_p:.3f})"
    return text + "."
