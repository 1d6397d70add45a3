"""Figures with 95 % intervals."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from cnnjepa.probes.interval import t_half_width, wilson
from cnnjepa.schemas.evaluation_result import EvaluationFigure


def accuracy(hits: ArrayLike) -> EvaluationFigure:
    """Return the share of true values in percent, with Wilson's interval over images."""
    values = np.asarray(hits, bool)
    percent = 100 * int(values.sum()) / values.size
    low, high = wilson(percent, values.size)
    return EvaluationFigure(value=percent, low=low, high=high, kind="images")


def mean_over_images(values: ArrayLike, bounded: bool = True) -> EvaluationFigure:
    """Return the mean of figures of single images, in percent, with Student's t interval, within 0 to 100, or of at
    least 0 if the figure has no upper bound."""
    return _t_interval(np.asarray(values, np.float64), "images", (), 100.0 if bounded else np.inf)


def mean_over_draws(values: Sequence[float]) -> EvaluationFigure:
    """Return the mean of the figures of several draws, in percent, with Student's t interval, within 0 to 100."""
    return _t_interval(np.asarray(values, np.float64), "draws", tuple(values))


def _t_interval(array: np.ndarray, kind: str, draws: tuple[float, ...], most: float = 100.0) -> EvaluationFigure:
    mean, low, high = float(array.mean()), None, None
    if array.size > 1:
        half = t_half_width(float(array.std(ddof=1)), array.size)
        low, high = max(0.0, mean - half), min(most, mean + half)
    return EvaluationFigure(value=mean, low=low, high=high, kind=kind, draws=draws)
