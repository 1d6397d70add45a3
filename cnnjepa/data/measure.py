"""Measurement of range, mean and standard deviation over training images, when a config asks for it."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnnjepa.data.jpeg_damage import repaired_images
from cnnjepa.data.source import ImageSource
from cnnjepa.errors import ImageError
from cnnjepa.randomness import key, uniforms
from cnnjepa.schemas import ConfigError, DataConfig
from cnnjepa.schemas.pixels import Measured

MOST_IMAGES = 4096
"""Largest number of images that are measured; of more, a sample that depends only on their number. Assumption: at
this number, means of photographs are known to a thousandth of the range."""

_VALUES_PER_IMAGE = 4096  # pixel values of an image that percentiles are computed from
_PERCENTILES = (0.5, 99.5)  # those with which nnU-Net clips CT images
_DIGITS = 6  # recorded, so that the last bit of a sum changes no name of a run


def measure(config: DataConfig, train: ImageSource) -> Measured:
    """Measure what `config.unmeasured` names, over the whole pixels of training images. Values are rounded to six
    digits. Raises ConfigError for images without contrast, and ImageError for an unreadable image under
    `on_error: raise`."""
    wanted, sample = config.unmeasured, _sample(train.labels.numel())
    found = Measured()
    if "range" in wanted:
        found = found._replace(range=_range(config, train, sample))
    if "mean" in wanted or "std" in wanted:
        mean, std = _statistics(config.measured_as(found) if found.range else config, train, sample, "std" in wanted)
        found = found._replace(mean=mean if "mean" in wanted else None, std=std if "std" in wanted else None)
    return found


def _sample(count: int) -> list[int]:
    if count <= MOST_IMAGES:
        return list(range(count))
    draws = uniforms(key(0, "measured"), torch.arange(count), 1)[:, 0]
    chosen: list[int] = draws.argsort(stable=True)[:MOST_IMAGES].sort().values.tolist()
    return chosen


def _load(config: DataConfig, source: ImageSource, index: int) -> Tensor | None:
    try:
        with repaired_images():  # it is named when it is loaded for training
            return source.load(index)
    except ImageError:
        if config.on_error == "raise":
            raise
        return None


def _range(config: DataConfig, source: ImageSource, sample: list[int]) -> tuple[float, float]:
    values: list[NDArray[np.float32]] = []
    for index in sample:
        image = _load(config, source, index)
        if image is None:
            continue
        pixels = image.numpy().reshape(-1)
        if pixels.size > _VALUES_PER_IMAGE:
            draws = uniforms(key(0, "percentile"), torch.arange(_VALUES_PER_IMAGE) + index * _VALUES_PER_IMAGE, 1)
            pixels = pixels[(draws[:, 0] * pixels.size).long().numpy()]
        values.append(pixels.astype(np.float32))
    low, high = (_rounded(value) for value in np.percentile(np.concatenate(values), _PERCENTILES))
    if not low < high:
        raise ConfigError(
            f"data.range=percentile: the {_PERCENTILES[0]}th and the {_PERCENTILES[1]}th percentile of the training "
            f"images are both {low:g}; give data.range as [low, high]"
        )
    return low, high


def _statistics(
    config: DataConfig, source: ImageSource, sample: list[int], spread: bool
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of every channel, of values mapped to 0..1 and clipped as in training."""
    low, high = config.bounds
    total, squares = (torch.zeros(config.channels, dtype=torch.float64) for _ in range(2))
    count = 0
    for index in sample:
        image = _load(config, source, index)
        if image is None:
            continue
        values = (image.double().flatten(1) - low) / (high - low)
        if config.range != "dtype":
            values = values.clamp(0, 1)
        total += values.sum(1)
        squares += values.square().sum(1)
        count += values.shape[1]
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt()
    constant = (std < 1e-7).nonzero().flatten().tolist()
    if spread and constant:
        raise ConfigError(
            f"data.std=measured: channel {constant[0]} has the same value in all training images, so it cannot be "
            "divided by its standard deviation; give data.std as a list of numbers, or leave the channel out of the "
            "files"
        )
    return tuple(map(_rounded, mean.tolist())), tuple(map(_rounded, std.tolist()))


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
