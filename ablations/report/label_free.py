"""Agreement of the figures that need no labels with the probes, over the trials of a study.

Trials of one arm differ only in their seeds, so that they are no independent evidence: intervals come from drawing
whole arms with replacement.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cnnjepa.ablations.report.comparison import METRICS, Metric
from cnnjepa.ablations.report.reading import PROTOCOLS, ReportedTrial, StudyData
from cnnjepa.ablations.report.statistics import LEAST_FOR_BOOTSTRAP
from cnnjepa.probes.interval import LEVEL
from cnnjepa.schemas import Diagnostics
from cnnjepa.schemas.probe import Protocol

LEAST_ARMS = 4
"""Number of arms from which the agreement is shown: with three, a third of all orderings have |τ| = 1."""

_RESAMPLES = 2000
_SEED = 20_240_814  # fixed, so that reports of the same results are identical


@dataclass(frozen=True)
class Figure:
    """A figure that needs no labels."""

    key: str
    label: str
    digits: int
    read: Callable[[Diagnostics], float | None]
    """Returns the figure as it is shown."""
    rank: Callable[[float], float] = lambda value: value
    """Returns a number that is larger where the figure says that features are better."""


FIGURES: tuple[Figure, ...] = (
    Figure("rankme", "RankMe", 1, lambda found: found.rankme),
    Figure("lidar", "LiDAR", 1, lambda found: found.lidar),
    Figure("alpha_req", "α-ReQ", 2, lambda found: found.alpha_req, lambda alpha: -abs(alpha - 1)),
    Figure("feature_std", "feature spread", 3, lambda found: found.feature_std),
    Figure("heldout_loss", "held-out loss", 4, lambda found: found.heldout_loss, lambda loss: -loss),
)


@dataclass(frozen=True)
class FigureAgreement:
    """Kendall's τ-b between a figure and an accuracy."""

    figure: Figure
    metric: Metric
    tau: float | None
    """1: the figure orders the trials like the accuracy; −1: in reverse; None when one side has all values equal."""
    low: float | None
    high: float | None
    """95 % percentile interval over resampled arms; None below eight arms."""
    trials: int
    arms: int
    left_out: int
    """Number of trials with the accuracy and without the figure."""


Reading = Literal["trusted", "tendency", "not shown", "reversed", "too few arms", "all equal"]


def reading(one: FigureAgreement) -> Reading:
    """Return whether the figure can be trusted in the place of the accuracy: `trusted` if the whole interval of τ is
    above ½ (the figure picks the better of two trials in more than three of four cases), `tendency` if it is above 0,
    `reversed` if it is below 0."""
    if one.tau is None:
        return "all equal"
    if one.low is None or one.high is None:
        return "too few arms"
    if one.low > 0:
        return "trusted" if one.low > 0.5 else "tendency"
    return "reversed" if one.high < 0 else "not shown"


def label_free_agreements(study: StudyData, dataset: str) -> list[FigureAgreement]:
    """Return the agreement of every figure with linear and k-NN accuracy on one data set, under `held_out` where it was
    probed. Figures with fewer than `LEAST_ARMS` arms are left out."""
    for protocol in PROTOCOLS:
        if found := _under(study, dataset, protocol):
            return found
    return []


def _under(study: StudyData, dataset: str, protocol: Protocol) -> list[FigureAgreement]:
    arms = [[t for t in arm.trials if t.result and t.figures(protocol)] for arm in study.on(dataset)]
    found = []
    for figure in FIGURES:
        for metric in METRICS:
            pairs = [[_pair(trial, figure, metric, protocol) for trial in trials] for trials in arms]
            judged = [pair for arm in pairs for pair in arm if pair[1] is not None]
            by_arm = [
                kept
                for arm in pairs
                if (kept := [(ours, theirs) for ours, theirs in arm if ours is not None and theirs is not None])
            ]
            trials = sum(map(len, by_arm))
            if len(by_arm) >= LEAST_ARMS:
                tau, low, high = clustered_tau(by_arm)
                left_out = len(judged) - trials
                found.append(FigureAgreement(figure, metric, tau, low, high, trials, len(by_arm), left_out))
    return found


def _pair(
    trial: ReportedTrial, figure: Figure, metric: Metric, protocol: Protocol
) -> tuple[float | None, float | None]:
    health = trial.result.diagnostics if trial.result else None
    value = figure.read(health) if health else None
    figures = trial.figures(protocol)
    return None if value is None else figure.rank(value), getattr(figures, metric) if figures else None


def clustered_tau(
    by_arm: Sequence[Sequence[tuple[float, float]]],
) -> tuple[float | None, float | None, float | None]:
    """Return (τ-b, low, high) of pairs grouped by arm. The 95 % interval is that of the percentiles over 2,000 draws of
    whole arms with replacement; copies of a trial are ties. None below eight arms."""
    values = np.array([pair for arm in by_arm for pair in arm], float)
    x, y = (np.sign(side[:, None] - side[None]) for side in values.T)
    counts = np.ones((1, len(values)))
    tau = float(_taus(x, y, counts)[0])
    if np.isnan(tau):
        return None, None, None
    if len(by_arm) < LEAST_FOR_BOOTSTRAP:
        return tau, None, None
    drawn = np.random.default_rng(_SEED).integers(len(by_arm), size=(_RESAMPLES, len(by_arm)))
    times = np.stack([(drawn == arm).sum(1) for arm in range(len(by_arm))], 1)
    taus = _taus(x, y, np.repeat(times, [len(arm) for arm in by_arm], axis=1).astype(float))
    low, high = np.nanquantile(taus, [LEVEL / 2, 1 - LEVEL / 2])
    return tau, float(low), float(high)


def _taus(x_NN: np.ndarray, y_NN: np.ndarray, counts_RN: np.ndarray) -> np.ndarray:
    """Return τ-b of R samples, NaN where one side has all values equal. `x` and `y` are the signs of all differences;
    `counts` says how often each sample has each trial."""

    def over_pairs(matrix_NN: np.ndarray) -> np.ndarray:
        return np.einsum("ri,ij,rj->r", counts_RN, matrix_NN, counts_RN, optimize=True)

    with np.errstate(invalid="ignore", divide="ignore"):
        taus: np.ndarray = over_pairs(x_NN * y_NN) / np.sqrt(over_pairs(np.abs(x_NN)) * over_pairs(np.abs(y_NN)))
    return taus
