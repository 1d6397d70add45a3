"""Depth, channels and range of pixels, and the numbers by which they are normalised."""

import math
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator

Depth = Literal["uint8", "uint16", "float32"]

LARGEST: dict[Depth, float] = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
"""The pixel value that `data.range: dtype` maps to 1."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class PixelKind(NamedTuple):
    """The form in which all images of a set are read: [channels, H, W] of one type."""

    channels: int = 3
    dtype: Depth = "uint8"


class Measured(NamedTuple):
    """Numbers measured over training images. A field that was not requested is None."""

    range: tuple[float, float] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


UNMEASURED = Measured()
"""For a config that asks for no measurement."""


def _numbers(value: Any) -> tuple[float, ...] | None:
    """Return a list of finite numbers as a tuple; None if `value` is anything else."""
    if not isinstance(value, list | tuple) or not value:
        return None
    if not all(isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one) for one in value):
        return None
    return tuple(float(one) for one in value)


def _per_channel(usual: tuple[float, ...]) -> BeforeValidator:
    """Return the validator of a statistic. `imagenet` becomes the numbers `usual`, so that they are recorded by
    value."""

    def validate(value: Any) -> Any:
        if value == "imagenet":
            return usual
        if value == "measured":
            return value
        if (numbers := _numbers(value)) is not None:
            return numbers
        raise ValueError(f"{value!r} is not valid; must be imagenet, measured or a list of one number per channel")

    return BeforeValidator(validate)


def _bounds(value: Any) -> Any:
    if value in ("dtype", "percentile"):
        return value
    numbers = _numbers(value)
    if numbers is None or len(numbers) != 2 or not numbers[0] < numbers[1]:
        raise ValueError(f"{value!r} is not valid; must be dtype, percentile or [low, high] with low < high")
    return numbers


ChannelMean = Annotated[tuple[float, ...] | Literal["imagenet", "measured"], _per_channel(IMAGENET_MEAN)]
ChannelStd = Annotated[tuple[float, ...] | Literal["imagenet", "measured"], _per_channel(IMAGENET_STD)]
ValueRange = Annotated[tuple[float, float] | Literal["dtype", "percentile"], BeforeValidator(_bounds)]
