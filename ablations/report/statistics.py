"""Statistics over seeds: intervals of a mean, paired differences, Holm's correction, rank agreement.

Accuracies are in percent, differences in percentage points. docs/report.md gives the reason for each statistic.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import optimize, stats

from cnnjepa.probes.interval import LEVEL, t_half_width, wilson

LEAST_FOR_BOOTSTRAP = 8
"""Resampling fewer values with replacement gives intervals that are too narrow: with 3, one resample in 9 repeats one
value."""

POWER = 0.8
"""Probability of detecting the difference that is reported as the smallest detectable one."""

_BOOTSTRAP_SEED = 20_240_814  # fixed, so that reports of the same results are identical
_QUANTILES = 20_000  # of the standard deviation; more change only the fifth digit
_MOST_ENUMERATED = 8  # comparing 8! = 40,320 orderings takes a moment

Verdict = Literal["baseline", "better", "worse", "indistinguishable", "same runs", "no spread", "no test"]
"""`no spread`: every seed differs by exactly the same amount, so a t test has no spread to compare with; `no test`:
fewer than two seeds in common with the baseline."""


@dataclass(frozen=True)
class AccuracyEstimate:
    """Estimate of an arm's accuracy from its runs."""

    mean: float
    sd: float | None
    """Standard deviation over seeds (n − 1 in the denominator); None with one seed."""
    n: int
    low: float
    high: float
    kind: Literal["t", "wilson"]
    """`t`: 95 % interval of the mean over seeds, within 0 to 100; `wilson`: interval of one run over its validation
    images."""


@dataclass(frozen=True)
class Difference:
    """The difference of an arm from the baseline, paired over the seeds that both have."""

    verdict: Verdict
    n: int
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    """95 % t interval of this difference alone, not corrected for the other comparisons."""
    p: float | None = None
    """p-value of the two-sided paired t test."""
    p_holm: float | None = None
    """p-value after Holm's correction over the table."""
    bootstrap: tuple[float, float] | None = None
    """95 % BCa interval, given from n = 8."""


@dataclass(frozen=True)
class Agreement:
    """Kendall's τ between two orderings of the same arms."""

    tau: float | None
    """τ-b; None when one side has all values equal."""
    p: float | None
    """Exact two-sided p-value: the fraction of orderings whose |τ| is at least as large."""
    arms: int
    least_p: float
    """The smallest p that this number of arms can give: the p of perfect agreement."""

    @property
    def can_reach(self) -> bool:
        """True if this number of arms can give a p below 5 % at all."""
        return self.least_p < LEVEL


def estimate(values: Sequence[float], images: int | None) -> AccuracyEstimate | None:
    """Return the mean and 95 % interval of one arm's accuracies, one per seed. Return None without any, or for one seed
    with an unknown number of validation images."""
    n = len(values)
    if n == 0 or (n == 1 and not images):
        return None
    if n == 1:
        assert images
        return AccuracyEstimate(values[0], None, 1, *wilson(values[0], images), "wilson")
    mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
    half = t_half_width(sd, n)
    return AccuracyEstimate(mean, sd, n, max(0.0, mean - half), min(100.0, mean + half), "t")


def difference(arm: Mapping[int, float], baseline: Mapping[int, float]) -> Difference:
    """Return the difference, paired over common seeds (seed → accuracy). The verdict is not corrected: see
    `corrected`."""
    seeds = sorted(arm.keys() & baseline.keys())
    n = len(seeds)
    ours, theirs = (np.array([side[seed] for seed in seeds]) for side in (arm, baseline))
    if n < 2:
        return Difference("no test", n, float(ours[0] - theirs[0]) if n else None)
    found = paired_difference(ours, theirs)
    return found if found.p is None else replace(found, bootstrap=_bootstrap(ours - theirs))


def paired_difference(ours: np.ndarray, theirs: np.ndarray) -> Difference:
    """Return the difference of two or more pairs of percentages, with the paired t test. The verdict is not
    corrected."""
    each = ours - theirs
    mean = float(each.mean())
    if np.ptp(each) <= 1e-9:  # a difference of percentages this small is rounding
        return Difference("no spread" if abs(mean) > 1e-9 else "indistinguishable", each.size, mean)
    test = stats.ttest_rel(ours, theirs)
    interval = test.confidence_interval(1 - LEVEL)
    p = float(test.pvalue)
    return Difference(verdict_of(p, mean), each.size, mean, float(interval.low), float(interval.high), p)


def corrected(differences: Sequence[Difference]) -> list[Difference]:
    """Return the same comparisons with Holm's p (Scand. J. Statist. 1979) and the resulting verdicts. If there are no
    true differences, the probability of any false verdict stays below 5 %. Comparisons that cannot be tested yet count
    too, so that a verdict does not change when they can be."""
    tested = [place for place, one in enumerate(differences) if one.p is not None]
    adjusted = holm([p for one in differences if (p := one.p) is not None], sum(map(counts, differences)))
    result = list(differences)
    for place, p in zip(tested, adjusted, strict=True):
        one = differences[place]
        result[place] = replace(one, p_holm=p, verdict=verdict_of(p, one.mean or 0.0))
    return result


def counts(one: Difference) -> bool:
    """Return whether this is one of the comparisons that share the level: all but the baseline with itself."""
    return one.verdict not in ("baseline", "same runs")


def holm(p_values: Sequence[float], tests: int | None = None) -> list[float]:
    """Return Holm-adjusted p-values in the given order. `tests` is the total number of tests; those without a p-value
    count as the largest."""
    adjusted, running, tests = [0.0] * len(p_values), 0.0, tests or len(p_values)
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, min(1.0, (tests - rank) * p_values[place]))
        adjusted[place] = running
    return adjusted


def mean_ratio(ratios: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Return (geometric mean, low, high). The 95 % t interval is computed on the logarithms; it is None for a single
    ratio."""
    logs = np.log(ratios)
    mean = float(logs.mean())
    if logs.size < 2:
        return math.exp(mean), None, None
    half = t_half_width(float(logs.std(ddof=1)), logs.size)
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def smallest_effect(n: int, tests: int) -> float | None:
    """Return the smallest true difference that the paired t test on n seeds detects with probability `POWER`.

    It is in standard deviations of a seed's difference, when `tests` comparisons share the level (Holm's first step, so
    the hardest case). Return None below two seeds or without a test.

    The power is that of Cohen, Statistical Power Analysis (1988), 2.3, averaged over the sample's standard deviation,
    because scipy's noncentral t gives NaN for two seeds.
    """
    if n < 2 or tests < 1:
        return None
    limit = float(stats.t.ppf(1 - LEVEL / tests / 2, n - 1))
    share = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    reach = limit * np.sqrt(stats.chi2.ppf(share, n - 1) / (n - 1))  # the mean must exceed this many standard errors

    def lacking(effect: float) -> float:
        shift = effect * math.sqrt(n)
        return POWER - float(np.mean(stats.norm.sf(reach - shift) + stats.norm.cdf(-reach - shift)))

    # at the upper end every sample is beyond its limit
    return float(optimize.brentq(lacking, 0.0, float(reach.max()) + 10))


def spread_of(one: Difference) -> float | None:
    """Return the standard deviation of a seed's difference, computed from its interval; None without an interval."""
    if one.low is None or one.high is None:
        return None
    return (one.high - one.low) / 2 / float(stats.t.ppf(1 - LEVEL / 2, one.n - 1)) * math.sqrt(one.n)


def verdict_of(p: float, mean: float) -> Verdict:
    """Return the verdict of a test with this p-value on a difference."""
    if p >= LEVEL:
        return "indistinguishable"
    return "better" if mean > 0 else "worse"


def _bootstrap(by_seed: np.ndarray) -> tuple[float, float] | None:
    if by_seed.size < LEAST_FOR_BOOTSTRAP:
        return None
    random = np.random.default_rng(_BOOTSTRAP_SEED)
    interval = stats.bootstrap((by_seed,), np.mean, confidence_level=1 - LEVEL, rng=random).confidence_interval
    return float(interval.low), float(interval.high)


def agreement(ours: Sequence[float], theirs: Sequence[float]) -> Agreement | None:
    """Return Kendall's τ-b of two orderings; None for fewer than three arms, for which p is 1 in any order.

    Up to eight arms, every ordering is compared, ties included. With more arms, scipy's exact distribution is used. It
    does not cover ties: with ties, p is None.
    """
    n = len(ours)
    if n < 3:
        return None
    x, y = np.asarray(ours, float), np.asarray(theirs, float)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return Agreement(None, None, n, 1.0)
    tau = float(stats.kendalltau(x, y).statistic)
    if n > _MOST_ENUMERATED:
        ties = len(frozenset(ours)) < n or len(frozenset(theirs)) < n
        p = None if ties else float(stats.kendalltau(x, y, method="exact").pvalue)
        return Agreement(tau, p, n, 2 / math.factorial(n))
    orders = np.array(list(itertools.permutations(range(n))))
    pairs = np.array(list(itertools.combinations(range(n), 2)))
    signs = np.sign(x[pairs[:, 0]] - x[pairs[:, 1]])
    permuted = y[orders]
    scores = np.abs((np.sign(permuted[:, pairs[:, 0]] - permuted[:, pairs[:, 1]]) * signs).sum(1))
    reached = scores[0]  # the first ordering is the observed one
    return Agreement(tau, float((scores >= reached).mean()), n, float((scores == scores.max()).mean()))
