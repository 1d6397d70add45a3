"""Images as the probes see them: in order, resized, centre-cropped and normalised, without randomness."""

from collections.abc import Generator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as transforms

from cnnjepa.data.jpeg_damage import repaired_images
from cnnjepa.data.pixels import torch_type
from cnnjepa.data.resample import resized
from cnnjepa.data.resident import ResidentSource
from cnnjepa.data.source import ImageSource
from cnnjepa.data.workers import load_batches
from cnnjepa.errors import ImageError, RunError
from cnnjepa.schemas import DataConfig

# Longer side over shorter side beyond which only the centre of an image is resized. Assumption: no photograph is
# longer.
_LONGEST = 16


class EvaluationBatch(NamedTuple):
    """A batch of images in the order of the data set. Unreadable images are left out."""

    pixels: Tensor
    """[b, K, S, S] of `data.dtype`."""
    places: Tensor
    """int64 [b], indices of the images in the data set."""
    skipped: list[str]
    """Images left out, by name and reason (`on_error: skip`)."""
    repaired: list[str]
    """Damaged images that were repaired while reading, by name and reason."""


def evaluation_batches(
    source: ImageSource, config: DataConfig, resize: int | None, batch_size: int, workers: int = 0
) -> Generator[EvaluationBatch]:
    """Yield all images of the data set once. `resize` is the length of the shorter side before the centre crop; None
    means image_size. Close the generator when an error ends the iteration early (see `load_batches`)."""
    images = _WholeImages(source, config, resize or config.image_size)
    if isinstance(source, ResidentSource) and source.images.shape[2:] == (config.image_size,) * 2 and not resize:
        for start in range(0, source.labels.numel(), batch_size):
            pixels = source.images[start : start + batch_size]
            yield EvaluationBatch(pixels, torch.arange(start, start + pixels.shape[0]), [], [])
        return
    yield from load_batches(images, workers, batch_size=batch_size)


class _WholeImages(Dataset[EvaluationBatch]):
    def __init__(self, source: ImageSource, config: DataConfig, resize: int) -> None:
        self._source, self._config, self._resize = source, config, resize

    def __len__(self) -> int:
        return int(self._source.labels.numel())

    def __getitems__(self, indices: list[int]) -> EvaluationBatch | RunError:
        images, kept, skipped, repaired = [], [], [], []
        for index in indices:
            try:
                with repaired_images() as found:
                    image = self._source.load(index)
            except ImageError as error:
                if self._config.on_error == "raise":
                    return error
                skipped.append(str(error))
                continue
            except RunError as error:
                return error
            repaired += found
            images.append(self._view(image))
            kept.append(index)
        size = self._config.image_size
        kind = self._config.pixels
        empty = torch.empty(0, kind.channels, size, size, dtype=torch_type(kind))
        pixels = torch.stack(images) if images else empty
        return EvaluationBatch(pixels, torch.tensor(kept, dtype=torch.int64), skipped, repaired)

    def _view(self, image: Tensor) -> Tensor:
        image = _without_ends(image)
        if min(image.shape[1:]) != self._resize:
            image = resized(image, [self._resize], "bilinear")
        view: Tensor = transforms.center_crop(image, [self._config.image_size])
        return view


def _without_ends(image: Tensor) -> Tensor:
    """Return the centre of a very long image. The centre crop is square, and the whole of a line of 1x60000 pixels
    would be resized to gigabytes."""
    _, height, width = image.shape
    if max(height, width) <= _LONGEST * min(height, width):
        return image
    most = _LONGEST * min(height, width)
    centre: Tensor = transforms.center_crop(image, [min(height, most), min(width, most)])
    return centre
