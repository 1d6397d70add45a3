"""Wording of numbers and verdicts, the same in every table, picture and sentence."""

from cnnjepa.ablations.report.statistics import AccuracyEstimate, Difference

PROTOCOL_MEANING = {
    "held_out": "everything chosen on a tenth of the training set, validation touched once",
    "published": "the paper's: the linear probe's best epoch on the validation set (optimistic)",
}
SINGLE = "†"
"""Mark of a single run's figure, whose interval is over validation images and not over seeds."""


def accuracy(one: AccuracyEstimate) -> str:
    """Return `84.43 ± 1.20`, or `83.70†` for a single seed."""
    return f"{one.mean:.2f}{SINGLE}" if one.sd is None else f"{one.mean:.2f} ± {one.sd:.2f}"


def interval(low: float | None, high: float | None, signed: bool = False) -> str:
    """Return `[82.10, 86.76]`, or a dash if there is no interval."""
    if low is None or high is None:
        return "–"
    form = "+.2f" if signed else ".2f"
    return f"[{low:{form}}, {high:{form}}]".replace("-", "−")


def signed(value: float | None) -> str:
    """Return `+0.40`, `−1.20`, or a dash."""
    return "–" if value is None else f"{value:+.2f}".replace("-", "−")


def p_value(p: float | None) -> str:
    """Return `p = 0.034`, `p < 0.001`, or `no p`."""
    if p is None:
        return "no p"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def verdict(one: Difference) -> str:
    """Return the verdict on an arm compared with the baseline."""
    return {
        "baseline": "baseline",
        "better": f"better at n = {one.n}",
        "worse": f"worse at n = {one.n}",
        "indistinguishable": f"not distinguishable at n = {one.n}",
        "same runs": "the baseline's own runs",
        "no spread": f"no test: equal differences at all {one.n} seeds",
        "no test": "one seed in common: no verdict" if one.n else "no seed in common: no verdict",
    }[one.verdict]


def listed(names: list[str], most: int = 8) -> str:
    """Return `a, b and c`, with semicolons if a name has a comma. Names beyond the first `most` are only counted."""
    comma = "; " if any(", " in name for name in names) else ", "
    if len(names) > most:
        return comma.join(names[:most]) + f" and {len(names) - most} more"
    last = f"{comma}and " if comma == "; " else " and "
    return last.join([comma.join(names[:-1]), names[-1]] if len(names) > 1 else names)
