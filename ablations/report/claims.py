"""The claims made before a study was run, and their answers: per metric, by the same tests as every verdict."""

from dataclasses import dataclass
from typing import Literal

from cnnjepa.ablations.report.comparison import METRICS, Comparison, Metric, Row
from cnnjepa.ablations.report.phrases import interval, signed, verdict
from cnnjepa.ablations.report.published_rows import counterparts, published_tables
from cnnjepa.ablations.report.statistics import Difference, smallest_effect, spread_of
from cnnjepa.schemas.study import Claim

Answer = Literal["holds", "does not hold", "inconclusive", "not tested"]


@dataclass(frozen=True)
class Answered:
    """The answer to a claim in one metric."""

    claim: Claim
    metric: Metric
    comparison: Comparison
    row: Row
    """The row of the claim's arm."""
    answer: Answer
    resolved: float | None
    """Resolution of these seeds, in points. For `worse` and `better`, which a test decides: the true difference that it
    would have detected, see `smallest_effect`. For `level` and `not_worse`, which the interval decides: half the
    interval's width, which must be less than the margin for the claim to hold for equal arms."""
    published: float | None
    """The published arm's accuracy minus the published baseline's, in points, on their own images and protocol."""
    published_on: str | None
    """The data set of that difference, `in100` or `in1k`."""

    @property
    def difference(self) -> Difference:
        """The difference of the arm from the baseline."""
        return self.row.differences[self.metric]


def answered(comparison: Comparison) -> list[Answered]:
    """Return every claim of the study on these images, for k-NN and linear; none if the baseline is on other images."""
    if comparison.baseline is None:
        return []
    published_on, published = _published(comparison)
    base = published.get(comparison.baseline.arm.label, {})
    found = []
    for claim in comparison.study.study.claims:
        row = next((row for row in comparison.rows if row.arm.choices == claim.arm), None)
        if row is None:
            continue
        theirs = published.get(row.arm.label, {})
        for metric in METRICS:
            one = row.differences[metric]
            gap = theirs[metric] - base[metric] if metric in theirs and metric in base else None
            found.append(
                Answered(
                    claim,
                    metric,
                    comparison,
                    row,
                    answer(claim, one),
                    _resolved(claim, one, comparison.comparisons),
                    gap,
                    published_on,
                )
            )
    return found


def answer(claim: Claim, one: Difference) -> Answer:
    """Return the answer to a claim: `worse` and `better` by the corrected test, `level` and `not_worse` by the
    interval."""
    if claim.margin is None:
        if one.verdict in ("better", "worse"):
            return "holds" if one.verdict == claim.expect else "does not hold"
        return "inconclusive" if one.verdict == "indistinguishable" else "not tested"
    if one.low is None or one.high is None:
        return "not tested"
    most = claim.margin if claim.expect == "level" else float("inf")
    if -claim.margin <= one.low and one.high <= most:
        return "holds"
    return "does not hold" if one.high < -claim.margin or one.low > most else "inconclusive"


def _resolved(claim: Claim, one: Difference, tests: int) -> float | None:
    if claim.margin is not None:
        return None if one.low is None or one.high is None else (one.high - one.low) / 2
    spread, factor = spread_of(one), smallest_effect(one.n, tests)
    return None if spread is None or factor is None else factor * spread


def expectation(claim: Claim) -> str:
    """Return the expectation in words: `worse`, `level within ±1.5`, `not below −1.5`."""
    if claim.expect == "level":
        return f"level within ±{claim.margin:g}"
    return f"not below −{claim.margin:g}" if claim.expect == "not_worse" else claim.expect


def claim_sentences(comparison: Comparison) -> list[tuple[str, str]]:
    """Return (sentence, kind) for every claim; one sentence covers both metrics."""
    said = []
    pairs = answered(comparison)
    for claim in comparison.study.study.claims:
        here = [one for one in pairs if one.claim is claim]
        parts = [f"{one.answer} by {METRICS[one.metric]} ({_evidence(one)})" for one in here]
        answers = {one.answer for one in here}
        kind = "finding" if answers & {"holds", "does not hold"} else "noise" if "inconclusive" in answers else "open"
        found = "; ".join(parts) or "not tested, because the arm or the baseline uses other images"
        said.append((f"Claim: “{claim.says}” Protocol {comparison.protocol}: {found}.", kind))
    return said


def _evidence(one: Answered) -> str:
    found = one.difference
    if found.low is None:
        return verdict(found)
    text = f"{signed(found.mean)} points {interval(found.low, found.high, True)}, n = {found.n}"
    if one.answer != "inconclusive" or one.resolved is None:
        return text
    if one.claim.margin is not None:
        return f"{text}; half the interval is {one.resolved:.2f}, the margin {one.claim.margin:g}"
    return f"{text}; the smallest detectable difference is {one.resolved:.1f} points"


def _published(comparison: Comparison) -> tuple[str | None, dict[str, dict[str, float]]]:
    """Return (published data set, arm → metric → published number). An arm is included if it is the only one of ours
    that matches its row. Only differences between the numbers are compared, so the protocol and the images may differ
    from ours."""
    name = comparison.study.study.published
    if name is None:
        return None, {}
    configs = {row.arm.label: row.arm.config for row in comparison.rows}
    published_on, rows = counterparts(published_tables()[name], configs, comparison.published_set or comparison.dataset)
    return published_on, {
        label: {metric: getattr(one.row, metric) for metric in METRICS} for label, one in rows.items() if one.alone
    }
