"""Intersection over union of predicted and true classes of pixels: counted per image, so that the mean over classes has
an interval by resampling images."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnnjepa.data.masks import IGNORED
from cnnjepa.probes.interval import LEVEL
from cnnjepa.schemas.evaluation_result import EvaluationFigure

Floats = NDArray[np.float64]

_DRAWS, _SEED = 1000, 0
_BLOCK = 100  # draws at a time: 40 MB of weights at 50,000 images


def overlaps(predicted_BHW: Tensor, masks_BHW: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return (intersections, unions) in pixels of every image and class, int64 [B, K]. Pixels of the value 255 in the
    mask do not count."""
    images = masks_BHW.shape[0]
    offset = torch.arange(images, device=masks_BHW.device)[:, None, None] * classes
    judged = masks_BHW != IGNORED
    truth, guess = offset + masks_BHW.long(), offset + predicted_BHW

    def count(values: Tensor, where: Tensor) -> Tensor:
        return torch.bincount(values[where], minlength=images * classes).view(images, classes)

    both = count(truth, judged & (truth == guess))
    return both, count(truth, judged) + count(guess, judged) - both


def counted(figure: str) -> tuple[str, str]:
    """Return the names under which intersections and unions [M, K] of a figure's images are stored."""
    return f"{figure}, intersections", f"{figure}, unions"


def class_ious(intersections: Floats, unions: Floats) -> Floats:
    """Return the intersection over union of every class in percent, from counts [..., K]; NaN for a class that is
    neither in the masks nor predicted."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ious: Floats = 100 * intersections / np.where(unions > 0, unions, np.nan)
    return ious


def mean_iou(intersections_MK: Floats, unions_MK: Floats) -> EvaluationFigure:
    """Return the mean IoU over classes, in percent, of counts that are summed over images, with the percentile interval
    of 1,000 draws of images with replacement."""
    value = float(np.nanmean(class_ious(intersections_MK.sum(0), unions_MK.sum(0))))
    draws = resampled(intersections_MK, unions_MK)
    low, high = np.percentile(draws, [50 * LEVEL, 100 - 50 * LEVEL])
    return EvaluationFigure(value=value, low=min(float(low), value), high=max(float(high), value), kind="images")


def resampled(intersections_MK: Floats, unions_MK: Floats) -> Floats:
    """Return the mean IoU of every draw of images, in percent, [1000]. The draws depend on the number of images only,
    so two encoders are compared draw by draw."""
    return np.concatenate(
        [
            np.nanmean(class_ious(weights @ intersections_MK, weights @ unions_MK), axis=1)
            for weights in _weights(intersections_MK.shape[0])
        ]
    )


def gap_of_draws(ours: tuple[Floats, Floats], theirs: tuple[Floats, Floats]) -> tuple[float, float, float]:
    """Return (low, high, p) of the difference of two mean IoUs in percentage points, from (intersections, unions) of
    the same images: the 95 % interval of its values over draws of images, and the two-sided p-value, twice the share of
    draws on the rarer side of 0."""
    gap = resampled(*ours) - resampled(*theirs)
    low, high = np.percentile(gap, [50 * LEVEL, 100 - 50 * LEVEL])
    rarer = min(int((gap <= 0).sum()), int((gap >= 0).sum()))
    return float(low), float(high), min(1.0, 2 * (rarer + 1) / (gap.size + 1))


def _weights(images: int) -> Iterator[Floats]:
    """Yield how often every image is in each draw, [draws, M]."""
    random = np.random.default_rng([_SEED, images])
    for _ in range(_DRAWS // _BLOCK):
        drawn = random.integers(images, size=(_BLOCK, images))
        rows = np.arange(_BLOCK)[:, None] * images
        yield np.bincount((rows + drawn).ravel(), minlength=_BLOCK * images).reshape(_BLOCK, images).astype(np.float64)
