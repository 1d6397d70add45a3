"""The summary in words: sentences that the tables of a study support."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from cnnjepa.ablations.report.claims import claim_sentences
from cnnjepa.ablations.report.comparison import METRICS, Comparison, Row
from cnnjepa.ablations.report.label_free import FigureAgreement
from cnnjepa.ablations.report.phrases import interval, listed, p_value, signed
from cnnjepa.ablations.report.reading import PROBE_AGAIN, ReportedTrial, StudyData
from cnnjepa.ablations.report.statistics import POWER, smallest_effect, spread_of
from cnnjepa.ablations.report.tables.accuracy_notes import agreement_sentence
from cnnjepa.ablations.report.tables.agreement_table import agreement_sentences
from cnnjepa.schemas.numbers import counted


class Sentence(NamedTuple):
    """A sentence and its kind, which the page shows as a mark."""

    text: str
    kind: str
    """`finding`, `noise`, `open` (no verdict is possible), `warning`, `missing` or `fact`."""


def study_summary(
    study: StudyData, comparisons: list[Comparison], agreeing: Mapping[str, list[FigureAgreement]] | None = None
) -> list[Sentence]:
    """Return the summary of a study, the most important sentences first. Verdicts use `held_out` where it was probed.
    `agreeing` is the agreement of figures without labels, by data set."""
    said = []
    for dataset in study.datasets:
        here = [c for c in comparisons if c.dataset == dataset and not c.empty]
        if here:
            said += [Sentence(text, kind) for text, kind in claim_sentences(here[0])]
            said += _verdicts(here[0])
            said += _below_floors(here[0])
    said += [
        Sentence(agreement_sentence(metric, one, comparison.ordered_on), "fact")
        for comparison in comparisons
        for metric, one in comparison.agreements.items()
    ]
    for dataset, agreements in (agreeing or {}).items():
        said += [Sentence(text, "fact") for text in agreement_sentences(agreements, dataset)]
    return [*said, *_completeness(study)]


def _verdicts(comparison: Comparison) -> list[Sentence]:
    base = comparison.baseline
    where = f"on {comparison.dataset}, protocol {comparison.protocol}"
    if base is None:
        return [Sentence(f"The baseline uses other images, so there is no comparison {where}.", "warning")]
    if len(comparison.rows) == 1:
        return [Sentence(f"{base.arm.label} is the only arm {where}; there is nothing to compare.", "fact")]
    if not base.counted:
        return [Sentence(f"The baseline {base.arm.label} has no finished trial {where}: no verdict.", "warning")]
    said = []
    for metric, label in METRICS.items():
        said += _distinguished(comparison, base, metric, label, where)
        said += _naive_winner(comparison, base, metric, label)
    said += _sensitivity(comparison)
    return said


def _distinguished(comparison: Comparison, base: Row, metric: str, label: str, where: str) -> list[Sentence]:
    """Return sentences on the arms that are better, worse, and not distinguishable."""
    others = [row for row in comparison.rows if not row.arm.baseline]

    def judged(*verdicts: str) -> list[Row]:
        return [row for row in others if row.differences[metric].verdict in verdicts]

    found = [
        Sentence(
            f"{verdict.capitalize()} than {base.arm.label} by {label} {where}: "
            f"{listed([_effect(row, metric) for row in rows])}.",
            "finding",
        )
        for verdict in ("better", "worse")
        if (rows := judged(verdict))
    ]
    if rest := judged("indistinguishable"):
        ns = sorted({row.differences[metric].n for row in rest})
        at = f"at n = {ns[0]}" + (f" to {ns[-1]}" if len(ns) > 1 else "")
        if found:
            text = f"Not distinguishable from {base.arm.label} by {label} {at}: {listed(_labels(rest))}."
        else:
            text = f"By {label} {where}, no arm is distinguishable from {base.arm.label} {at}."
        found.append(Sentence(text, "noise"))
    if few := judged("no test"):
        why = f"fewer than two seeds in common with {base.arm.label}"
        found.append(Sentence(f"By {label} {where}, no verdict on {listed(_labels(few))}: {why}.", "open"))
    if flat := judged("no spread"):
        why = "the difference is the same at every seed, so there is no spread to test against"
        found.append(Sentence(f"By {label} {where}, no verdict on {listed(_labels(flat))}: {why}.", "open"))
    return found


def _labels(rows: list[Row]) -> list[str]:
    return [row.arm.label for row in rows]


def _effect(row: Row, metric: str) -> str:
    one = row.differences[metric]
    return f"{row.arm.label} by {signed(one.mean)} points {interval(one.low, one.high, True)}, {p_value(one.p_holm)}"


def _naive_winner(comparison: Comparison, base: Row, metric: str, label: str) -> list[Sentence]:
    """Return a warning if the arm with the highest mean is not significantly better than the baseline."""
    ranked = [row for row in comparison.rows if metric in row.estimates]
    if len(ranked) < 2 or metric not in base.estimates:
        return []
    top = max(ranked, key=lambda row: row.estimates[metric].mean)
    one, mean = top.differences[metric], top.estimates[metric].mean
    lead = mean - base.estimates[metric].mean
    if top.arm.baseline or one.verdict in ("better", "same runs") or lead <= 0:
        return []
    if one.verdict == "indistinguishable":
        why = f"but the difference is not significant at n = {one.n}: it is not a winner"
    else:
        why = "but the difference cannot be tested: it is not a winner"
    one_seed = " over its one seed" if top.estimates[metric].n == 1 else ""
    lead_in_words = f"{mean:.2f} %, {lead:.2f} above {base.arm.label}"
    text = f"{top.arm.label} has the highest mean {label}{one_seed} ({lead_in_words}), {why}."
    return [Sentence(text, "noise" if one.verdict == "indistinguishable" else "open")]


def _sensitivity(comparison: Comparison) -> list[Sentence]:
    """Return the smallest detectable difference, for the median spread of the arms' differences."""
    parts = []
    for metric, label in METRICS.items():
        effects = [
            factor * spread
            for row in comparison.rows
            if (one := row.differences.get(metric)) and (spread := spread_of(one)) is not None
            and (factor := smallest_effect(one.n, comparison.comparisons)) is not None
        ]  # fmt: skip
        if effects:
            parts.append(f"{label} {np.median(effects):.1f}")
    if not parts:
        return []
    text = (
        f"The smallest difference that these seeds can detect ({100 * POWER:.0f} % power, Holm over "
        f"{comparison.comparisons} tests, median standard deviation of a seed's difference): {listed(parts)} points."
    )
    return [Sentence(text, "fact")]


def _below_floors(comparison: Comparison) -> list[Sentence]:
    """Return warnings for arms whose mean does not exceed the accuracy of their own encoders before training."""
    found = []
    for metric, label in METRICS.items():
        for floor, name in (("untrained", "untrained encoder"), ("warm_start", "warm start")):
            if below := _not_above(comparison, metric, floor):
                text = f"Not above the {name} by {label}: {listed(below)}. Pretraining shows no benefit."
                found.append(Sentence(text, "warning"))
    return found


def _not_above(comparison: Comparison, metric: str, floor: str) -> list[str]:
    """Return the arms whose mean does not exceed this floor, each with both figures."""
    below = []
    for row in comparison.rows:
        floors = [
            value
            for trial in row.counted.values()
            if trial.result
            and trial.result.method != "random_init"
            and (probes := getattr(trial.result.first_set.floors, floor))
            if (figures := getattr(probes, comparison.protocol))
            if (value := getattr(figures, metric)) is not None
        ]
        if floors and metric in row.estimates and row.estimates[metric].mean <= float(np.mean(floors)):
            below.append(f"{row.arm.label} ({row.estimates[metric].mean:.1f} against {np.mean(floors):.1f})")
    return below


def _completeness(study: StudyData) -> list[Sentence]:
    trials = study.trials
    finished = [trial for trial in trials if trial.status.state == "finished"]
    seeds = len(study.study.seeds)
    shape = f"{counted(len(study.arms), 'arm')} x {counted(seeds, 'seed')}"
    if len(finished) == len(trials):
        said = [Sentence(f"Complete: {len(trials)} of {counted(len(trials), 'trial')} finished ({shape}).", "fact")]
    else:
        said = [Sentence(f"{len(finished)} of {counted(len(trials), 'trial')} finished ({shape}).", "missing")]
    for state, words in (
        ("collapsed", "Collapsed (shown, not averaged)"),
        ("failed", "Failed"),
        ("unreadable", "Unreadable (left out)"),
        ("running", "Running now"),
        ("begun", "Begun, not finished"),
        ("waiting", "Not run yet"),
    ):
        if some := [t for t in trials if t.status.state == state and not _to_be_probed(t)]:
            said.append(Sentence(f"{words}: {listed(_by_arm(some, study))}.", "missing"))
    if some := [trial for trial in trials if _to_be_probed(trial)]:
        why = "their results belong to other probe settings; running the study again probes them without training"
        said.append(Sentence(f"To be probed again: {listed(_by_arm(some, study))}; {why}.", "missing"))
    said += [Sentence(f"{warning}.", "warning") for warning in study.warnings]
    return said


def _to_be_probed(trial: ReportedTrial) -> bool:
    return trial.status.problem == PROBE_AGAIN


def _by_arm(trials: list[ReportedTrial], study: StudyData) -> list[str]:
    """Return `depth=6 at 2 of 3 seeds` per arm."""
    planned = {arm.label: len(arm.trials) for arm in study.arms}
    counts: dict[str, int] = {}
    for trial in trials:
        counts[trial.record.arm] = counts.get(trial.record.arm, 0) + 1
    return [f"{label} at {count} of {planned[label]} seeds" for label, count in counts.items()]
