"""Check a data set before training: unreadable images, sizes, depth, channels and values."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cnnjepa.data.jpeg_damage import repaired_images
from cnnjepa.data.open import open_sources
from cnnjepa.data.pixels import RGB8
from cnnjepa.data.source import EncodedSource, ImageSource, Splits
from cnnjepa.errors import ImageError
from cnnjepa.schemas import DataConfig
from cnnjepa.schemas.pixels import LARGEST, PixelKind

_SAMPLED = 2**16  # pixels of an image that mean and standard deviation are computed from: rows and columns are skipped
_NARROW = 0.25  # share of the range of a type below which a narrower range is advised. Assumption.


class Values(NamedTuple):
    """The values of one image, all [channels]."""

    least: NDArray[np.float64]
    most: NDArray[np.float64]
    total: NDArray[np.float64]
    """Sum over the sampled pixels."""
    squares: NDArray[np.float64]
    """Sum of squares over the sampled pixels."""
    sampled: int
    """Number of sampled pixels."""


class Checked(NamedTuple):
    """The result of checking one image."""

    split: str
    problem: str | None
    """Name and reason if the image cannot be read, else None."""
    size: tuple[int, int] | None
    """(height, width) in pixels if the image can be read, else None."""
    class_name: str = ""
    values: Values | None = None
    """Its values if the image can be read, else None."""
    repaired: str | None = None
    """Name and reason if the image is damaged and was repaired while reading, else None."""


def check_images(config: DataConfig, threads: int = 2, sources: Splits | None = None) -> Iterator[Checked]:
    """Read and decode every image of both splits, in order. `sources` are the config's sources if they are already
    open. Threads suffice because decoding releases the interpreter's lock."""

    def look(source: ImageSource, split: str, index: int) -> Checked:
        name = str(source.class_names[int(source.labels[index])]) if source.class_names else ""
        try:
            with repaired_images() as repaired:
                image = source.load(index)
        except ImageError as error:
            return Checked(split, str(error), None, name)
        size = (image.shape[1], image.shape[2])
        return Checked(split, None, size, name, _values(image), repaired[0] if repaired else None)

    with ThreadPoolExecutor(threads) as pool:
        for split, source in (sources or open_sources(config)).items():
            count = source.labels.numel()
            for start in range(0, count, 4096):
                block = range(start, min(start + 4096, count))
                yield from pool.map(lambda index, s=source, n=split: look(s, n, index), block)


def _values(image_CHW: Tensor) -> Values:
    pixels = image_CHW.numpy()
    step = max(1, math.ceil(math.sqrt(pixels[0].size / _SAMPLED)))
    sampled = pixels[:, ::step, ::step].astype(np.float64)
    least, most = pixels.min((1, 2)).astype(np.float64), pixels.max((1, 2)).astype(np.float64)
    return Values(least, most, sampled.sum((1, 2)), np.square(sampled).sum((1, 2)), sampled[0].size)


def read_as_stored(sources: Splits) -> PixelKind:
    """Let the sources read images in the form of the first readable training image: 8-bit RGB unless that would lose a
    channel or a bit of it. Returns the form."""
    source = sources["train"]
    kind = RGB8
    if isinstance(source, EncodedSource):
        kind = next((found for index in range(source.labels.numel()) if (found := _stored(source, index))), RGB8)
        for one in sources.values():
            assert isinstance(one, EncodedSource)
            one.pixels = kind
    return kind


def _stored(source: EncodedSource, index: int) -> PixelKind | None:
    """Return the form that keeps the whole image; None if it cannot be read."""
    kind = RGB8
    for _ in range(4):  # an image is refused for its depth first, then for its channels
        loaded, fits = _tried(source, index, kind)
        if loaded:
            grey = kind._replace(channels=1)
            return grey if kind.dtype != "uint8" and _tried(source, index, grey)[0] else kind
        if fits is None:
            return None
        kind = fits
    return None


def _tried(source: EncodedSource, index: int, kind: PixelKind) -> tuple[bool, PixelKind | None]:
    """Return whether the image can be read in this form, and the form that the refusal names."""
    source.pixels = kind
    try:
        with repaired_images():  # each is checked, and named, later
            source.load(index)
    except ImageError as error:
        return False, error.fits
    return True, None


class Summary:
    """Values of all checked images."""

    def __init__(self, kind: PixelKind) -> None:
        self._kind = kind
        self._least, self._most = np.full(kind.channels, np.inf), np.full(kind.channels, -np.inf)
        self._total, self._squares, self._count = np.zeros(kind.channels), np.zeros(kind.channels), 0

    def add(self, values: Values) -> None:
        """Add one image."""
        self._least, self._most = np.minimum(self._least, values.least), np.maximum(self._most, values.most)
        self._total, self._squares = self._total + values.total, self._squares + values.squares
        self._count += values.sampled

    def lines(self) -> list[str]:
        """Return depth and channels, range, mean and standard deviation, and the settings that read such images."""
        kind, most_possible = self._kind, LARGEST[self._kind.dtype]
        if not self._count:
            return []
        mean = self._total / self._count / most_possible
        std = np.sqrt(np.maximum(self._squares / self._count / most_possible**2 - mean**2, 0))
        low, high = float(self._least.min()), float(self._most.max())
        scale = "" if kind.dtype == "float32" else f" of values divided by {most_possible:g}"
        lines = [
            f"read as {kind.channels} channel{'s' * (kind.channels > 1)} of {kind.dtype}; "
            f"values {low:.10g} to {high:.10g}",
            f"mean per channel{scale}: {_listed(mean)}; standard deviation: {_listed(std)}",
        ]
        settings = [
            f"data.{name}={now}" for name, now, usual in zip(kind._fields, kind, RGB8, strict=True) if now != usual
        ]
        if kind.dtype != "uint8" and not _NARROW <= (high - low) / most_possible <= 1:
            settings.append("data.range=percentile")
        if settings:
            lines.append(f"such images need {' '.join(f'--set {setting}' for setting in settings)}")
        return lines


def _listed(numbers: NDArray[np.float64]) -> str:
    return ", ".join(f"{number:.4g}" for number in numbers)
