"""Images as the probes see them: in order, resized, centre-cropped and normalised, without randomness."""

from collections.abc import Generator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as transforms

from cnnjepa.data.resident import ResidentSource
from cnnjepa.data.source import ImageSource
from cnnjepa.data.workers import load_batches
from cnnjepa.errors import ImageError, RunError
from cnnjepa.schemas import DataConfig


class EvaluationBatch(NamedTuple):
    """A batch of images in the order of the data set. Unreadable images are left out."""

    pixels: Tensor
    """uint8 [b, 3, S, S]."""
    places: Tensor
    """int64 [b], indices of the images in the data set."""
    skipped: list[str]
    """Images left out, by name and reason (`on_error: skip`)."""


def evaluation_batches(
    source: ImageSource, config: DataConfig, resize: int | None, batch_size: int, workers: int = 0
) -> Generator[EvaluationBatch]:
    """Yield all images of the data set once. `resize` is the length of the shorter side before the centre crop; None
    means image_size. Close the generator when an error ends the iteration early (see `load_batches`)."""
    images = _WholeImages(source, config, resize or config.image_size)
    if isinstance(source, ResidentSource) and source.images.shape[2:] == (config.image_size,) * 2 and not resize:
        for start in range(0, source.labels.numel(), batch_size):
            pixels = source.images[start : start + batch_size]
            yield EvaluationBatch(pixels, torch.arange(start, start + pixels.shape[0]), [])
        return
    yield from load_batches(images, workers, batch_size=batch_size)


class _WholeImages(Dataset[EvaluationBatch]):
    def __init__(self, source: ImageSource, config: DataConfig, resize: int) -> None:
        self._source, self._config, self._resize = source, config, resize

    def __len__(self) -> int:
        return int(self._source.labels.numel())

    def __getitems__(self, indices: list[int]) -> EvaluationBatch | RunError:
        images, kept, skipped = [], [], []
        for index in indices:
            try:
                image = self._source.load(index)
            except ImageError as error:
                if self._config.on_error == "raise":
                    return error
                skipped.append(str(error))
                continue
            except RunError as error:
                return error
            images.append(self._view(image))
            kept.append(index)
        size = self._config.image_size
        pixels = torch.stack(images) if images else torch.empty(0, 3, size, size, dtype=torch.uint8)
        return EvaluationBatch(pixels, torch.tensor(kept, dtype=torch.int64), skipped)

    def _view(self, image: Tensor) -> Tensor:
        if min(image.shape[1:]) != self._resize:
            image = transforms.resize(image, [self._resize], antialias=True)
        view: Tensor = transforms.center_crop(image, [self._config.image_size])
        return view
