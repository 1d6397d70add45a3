"""The report's statistics against values known by hand, against scipy asked otherwise, and on studies of noise."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from cnnjepa.ablations.report.statistics import (
    agreement,
    corrected,
    difference,
    estimate,
    holm,
    smallest_effect,
    spread_of,
)
from cnnjepa.probes.interval import wilson


def test_an_arm_s_interval_is_student_s() -> None:
    one = estimate([80.0, 82.0, 84.0], 2000)
    assert one and (one.mean, one.sd, one.n, one.kind) == (82.0, 2.0, 3, "t")
    # t(0.975, 2 degrees of freedom) = 4.3027, from a printed table.
    assert one.high - one.mean == pytest.approx(4.3027 * 2 / math.sqrt(3), rel=1e-4)
    assert one.mean - one.low == pytest.approx(one.high - one.mean)


def test_an_interval_of_a_percentage_stays_within_0_and_100() -> None:
    one = estimate([99.0, 90.0], 100)
    assert one and one.high == 100.0
    assert one.low > 0


def test_one_seed_gets_the_binomial_interval_of_its_validation_images() -> None:
    one = estimate([80.0], 2000)
    assert one and (one.low, one.high) == wilson(80.0, 2000)
    assert (one.sd, one.n, one.kind) == (None, 1, "wilson")


def test_no_interval_is_invented() -> None:
    assert estimate([], 2000) is None
    assert estimate([80.0], None) is None


def test_a_paired_difference_is_known_by_hand() -> None:
    one = difference({0: 51.0, 1: 62.0, 2: 73.0}, {0: 50.0, 1: 60.0, 2: 70.0})
    # Differences 1, 2, 3: mean 2, sd 1, t = 2·√3 = 3.464; two degrees of freedom: p = 1 − t/√(t² + 2).
    t = 2 * math.sqrt(3)
    assert (one.mean, one.n) == (2.0, 3)
    assert one.p == pytest.approx(1 - t / math.sqrt(t * t + 2))
    assert one.low == pytest.approx(2 - 4.3027 / math.sqrt(3), rel=1e-4)
    assert one.verdict == "indistinguishable"


def test_pairing_sees_what_the_spread_between_seeds_hides() -> None:
    """Seeds differ by 20 points, arms by about 1 at every seed."""
    base = {0: 40.0, 1: 50.0, 2: 60.0, 3: 70.0}
    arm = {0: 41.0, 1: 51.1, 2: 60.9, 3: 71.0}
    assert stats.ttest_ind(list(arm.values()), list(base.values())).pvalue > 0.9
    assert difference(arm, base).verdict == "better"
    assert difference(base, arm).verdict == "worse"


def test_only_seeds_in_common_are_paired() -> None:
    one = difference({0: 51.0, 1: 62.0, 7: 99.0}, {0: 50.0, 1: 60.0, 2: 0.0})
    assert (one.n, one.mean) == (2, 1.5)
    alone = difference({0: 99.0}, {0: 50.0, 1: 60.0})
    assert (alone.verdict, alone.n, alone.mean, alone.p) == ("no test", 1, 49.0, None)
    apart = difference({5: 99.0, 6: 98.0}, {0: 50.0, 1: 60.0})
    assert (apart.verdict, apart.n, apart.mean) == ("no test", 0, None)


def test_equal_differences_give_no_verdict_rather_than_a_p_of_zero() -> None:
    """Accuracies are counts: two seeds may well differ by the same number of images, which proves nothing."""
    assert difference({0: 50.5, 1: 60.5}, {0: 50.0, 1: 60.0}).verdict == "no spread"
    assert difference({0: 50.1, 1: 60.1, 2: 70.1}, {0: 50.0, 1: 60.0, 2: 70.0}).p is None
    assert difference({0: 50.0, 1: 60.0}, {0: 50.0, 1: 60.0}).verdict == "indistinguishable"


def test_holm_s_correction_is_known_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_difference_that_looks_significant_alone_is_not_after_correction() -> None:
    rng = np.random.default_rng(3)
    base = dict.fromkeys(range(5), 50.0)
    wins = difference({0: 51.0, 1: 51.4, 2: 50.2, 3: 51.5, 4: 50.6}, base)
    assert wins.p is not None and 0.01 < wins.p < 0.05 and wins.verdict == "better"
    others = [difference({seed: 50 + rng.normal() for seed in range(5)}, base) for _ in range(5)]
    after = corrected([wins, *others])[0]
    assert after.p_holm is not None and after.p_holm > 0.05
    assert after.verdict == "indistinguishable"


def test_the_bootstrap_waits_for_eight_seeds_and_says_the_same_twice() -> None:
    rng = np.random.default_rng(0)
    base = {seed: 50.0 + rng.normal() for seed in range(8)}
    arm = {seed: value + 1 + rng.normal() for seed, value in base.items()}
    seven = {seed: value for seed, value in arm.items() if seed < 7}
    assert difference(seven, base).bootstrap is None
    one = difference(arm, base)
    assert one.bootstrap is not None and one.bootstrap == difference(arm, base).bootstrap
    # Near the t interval, and a little narrower: resampling knows nothing of the degrees of freedom.
    assert one.low is not None and one.high is not None
    assert one.low < one.bootstrap[0] < one.mean < one.bootstrap[1] < one.high  # type: ignore[operator]


def test_kendall_s_tau_and_its_exact_p_are_known_by_hand() -> None:
    three = agreement([1.0, 2.0, 3.0], [10.0, 20.0, 30.0])
    assert three and (three.tau, three.p) == (1.0, pytest.approx(2 / 6))
    assert not three.can_reach and three.least_p == pytest.approx(2 / 6)
    four = agreement([1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0])
    assert four and (four.tau, four.p) == (-1.0, pytest.approx(2 / 24)) and not four.can_reach
    five = agreement([1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 2.0, 3.0, 4.0, 5.0])
    assert five and five.p == pytest.approx(2 / 120) and five.can_reach
    # One side all equal; two arms tied: of the six orderings four reach |S| = 2.
    assert (flat := agreement([1.0] * 3, [1.0, 2.0, 3.0])) and flat.tau is None and flat.p is None
    tied = agreement([1.0, 1.0, 2.0], [1.0, 2.0, 3.0])
    assert tied and tied.tau == pytest.approx(2 / math.sqrt(2 * 3)) and tied.p == pytest.approx(4 / 6)
    assert agreement([1.0, 2.0], [2.0, 1.0]) is None  # whose p is 1 in either order


def test_kendall_s_exact_p_is_scipy_s_where_there_are_no_ties() -> None:
    rng = np.random.default_rng(1)
    for n, _ in itertools.product((4, 6, 8, 10), range(5)):
        x, y = rng.permutation(n).astype(float), rng.permutation(n).astype(float)
        ours, theirs = agreement(list(x), list(y)), stats.kendalltau(x, y, method="exact")
        assert ours and ours.tau == pytest.approx(theirs.statistic) and ours.p == pytest.approx(theirs.pvalue)


@pytest.mark.medium
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_studies_without_any_difference_name_no_winner_more_than_one_time_in_twenty(seeds: int) -> None:
    """1,000 studies of a baseline and four arms, two metrics, accuracies counted over 2,000 images.

    The family-wise rate that Holm promises is at most 5 %; a run of 1,000 studies at exactly 5 % exceeds the bound
    below with a chance of 1 in 1,000, so the bound is what a true rate of 5 % allows and no more.
    """
    rng = np.random.default_rng(seeds)
    studies, uncorrected, false_verdicts, false_winners = 1000, 0, 0, 0
    for _ in range(studies):
        by_seed = rng.normal(70, 2, size=(seeds, 1, 2))  # an easy seed is easy for every arm and metric
        accuracies = np.round((by_seed + rng.normal(0, 1, size=(seeds, 5, 2))) * 20) / 20
        each = [
            difference(dict(enumerate(accuracies[:, arm, metric])), dict(enumerate(accuracies[:, 0, metric])))
            for arm in range(1, 5)
            for metric in range(2)
        ]
        uncorrected += any(one.verdict in ("better", "worse") for one in each)
        verdicts = {one.verdict for one in corrected(each)}
        false_verdicts += bool(verdicts & {"better", "worse"})
        false_winners += "better" in verdicts
    most = stats.binom.ppf(0.999, studies, 0.05)
    assert false_verdicts <= most, f"{false_verdicts} of {studies} (at most {most:.0f})"
    assert false_winners <= 0.05 * studies
    assert uncorrected > 2 * most, "without Holm's correction this test must fail"


def test_a_true_difference_is_found() -> None:
    """The other side of the test above: five points at a spread of one are seen at n = 5 nearly always."""
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(200):
        base = dict(enumerate(rng.normal(70, 1, 5)))
        arms = [dict(enumerate(rng.normal(75, 1, 5))), *(dict(enumerate(rng.normal(70, 1, 5))) for _ in range(3))]
        found += corrected([difference(arm, base) for arm in arms])[0].verdict == "better"
    assert found > 190


@pytest.mark.parametrize(("n", "tests"), [(3, 1), (5, 2), (8, 6)])
def test_the_smallest_effect_is_the_one_that_is_found_in_four_of_five_samples(n: int, tests: int) -> None:
    effect = smallest_effect(n, tests)
    assert effect is not None
    limit = stats.t.ppf(1 - 0.05 / tests / 2, n - 1)
    assert stats.nct.sf(limit, n - 1, effect * math.sqrt(n)) == pytest.approx(0.8, abs=1e-3)
    samples = np.random.default_rng(0).normal(effect, 1.0, (20_000, n))
    p = stats.ttest_1samp(samples, 0.0, axis=1).pvalue
    assert float((p < 0.05 / tests).mean()) == pytest.approx(0.8, abs=0.01)


def test_more_seeds_see_less_and_no_test_sees_nothing() -> None:
    effects = [smallest_effect(n, 2) for n in (2, 3, 5, 8)]
    assert all(a is not None and b is not None and a > b for a, b in itertools.pairwise(effects))
    assert smallest_effect(1, 2) is None and smallest_effect(5, 0) is None


def test_the_spread_of_a_difference_is_read_back_from_its_interval() -> None:
    one = difference({0: 51.0, 1: 62.0, 2: 73.0}, {0: 50.0, 1: 60.0, 2: 70.0})
    assert spread_of(one) == pytest.approx(1.0)
    assert spread_of(difference({0: 1.0}, {0: 2.0})) is None
