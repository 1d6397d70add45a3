"""Images as the probes see them: in order, resized, centre-cropped and normalised, without randomness."""

from collections.abc import Callable, Generator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from cnnjepa.data.jpeg_damage import repaired_images
from cnnjepa.data.pixels import torch_type
from cnnjepa.data.resample import resized
from cnnjepa.data.resident import ResidentSource
from cnnjepa.data.source import Images
from cnnjepa.data.workers import load_batches
from cnnjepa.errors import ImageError, RunError
from cnnjepa.schemas import ConfigError, DataConfig
from cnnjepa.schemas.extent import height_width

# Side of an image, in sides of the largest crop that it holds, beyond which only the image's centre is resized.
# Assumption: no photograph is longer.
_LONGEST = 16


class EvaluationBatch(NamedTuple):
    """A batch of images in the order of the data set. Unreadable images are left out."""

    pixels: Tensor
    """[b, K, H, W] of `data.dtype`."""
    places: Tensor
    """int64 [b], indices of the images in the data set."""
    skipped: list[str]
    """Images left out, by name and reason (`on_error: skip`)."""
    repaired: list[str]
    """Damaged images that were repaired while reading, by name and reason."""
    masks: Tensor | None = None
    """uint8 [b, H, W], if masks were asked for."""


MaskOf = Callable[[int, Tensor], Tensor]
"""(index, image [K, H, W] as it was read) → its mask, uint8 [H, W]. Raises ConfigError for a mask that does not fit the
image, and ImageError for one that cannot be read."""


def evaluation_batches(
    source: Images,
    config: DataConfig,
    resize: int | None,
    batch_size: int,
    workers: int = 0,
    mask_of: MaskOf | None = None,
) -> Generator[EvaluationBatch]:
    """Yield all images of the data set once, with masks if `mask_of` is given; they are resized and cropped as their
    images, and keep their values. `resize` is the length of the shorter side before the centre crop; None means that of
    image_size. Close the generator when an error ends the iteration early (see `load_batches`)."""
    images = _WholeImages(source, config, resize, mask_of)
    as_they_are = not resize and mask_of is None
    if as_they_are and isinstance(source, ResidentSource) and source.images.shape[2:] == images.crop:
        for start in range(0, source.labels.numel(), batch_size):
            pixels = source.images[start : start + batch_size]
            yield EvaluationBatch(pixels, torch.arange(start, start + pixels.shape[0]), [], [])
        return
    yield from load_batches(images, workers, batch_size=batch_size)


class _WholeImages(Dataset[EvaluationBatch]):
    def __init__(self, source: Images, config: DataConfig, resize: int | None, mask_of: MaskOf | None) -> None:
        self._source, self._config, self._mask_of = source, config, mask_of
        self.crop = height_width(config.image_size)
        self._resize = resize or min(self.crop)

    def __len__(self) -> int:
        return int(self._source.labels.numel())

    def __getitems__(self, indices: list[int]) -> EvaluationBatch | RunError | ConfigError:
        images, masks, kept, skipped, repaired = [], [], [], [], []
        for index in indices:
            try:
                with repaired_images() as found:
                    image = self._source.load(index)
                if self._mask_of is not None:
                    masks.append(self._view(self._mask_of(index, image)[None], InterpolationMode.NEAREST_EXACT)[0])
            except ImageError as error:
                if self._config.on_error == "raise":
                    return error
                skipped.append(str(error))
                continue
            except (RunError, ConfigError) as error:
                return error
            repaired += found
            images.append(self._view(image))
            kept.append(index)
        kind = self._config.pixels
        empty = torch.empty(0, kind.channels, *self.crop, dtype=torch_type(kind))
        pixels = torch.stack(images) if images else empty
        places = torch.tensor(kept, dtype=torch.int64)
        return EvaluationBatch(pixels, places, skipped, repaired, torch.stack(masks) if masks else None)

    def _view(self, image: Tensor, interpolation: InterpolationMode = InterpolationMode.BILINEAR) -> Tensor:
        image = _without_ends(image, self.crop)
        size = covering(image.shape[1], image.shape[2], self.crop, self._resize)
        if size != tuple(image.shape[1:]):
            image = resized(image, list(size), interpolation)
        view: Tensor = transforms.center_crop(image, list(self.crop))
        return view


def covering(height: int, width: int, crop: tuple[int, int], shorter: int) -> tuple[int, int]:
    """Return the size to which an image of `height` x `width` is resized so that it just covers the rectangle `crop`
    (height, width), enlarged until its shorter side is `shorter`. For a square this is torchvision's `resize` of the
    shorter side."""
    tall, wide = (side * shorter // min(crop) for side in crop)
    if height * crop[1] <= width * crop[0]:  # not taller than the rectangle: the height decides
        return tall, max(wide, tall * width // height)
    return max(tall, wide * height // width), wide


def _without_ends(image: Tensor, crop: tuple[int, int]) -> Tensor:
    """Return the centre of a very long image. The whole of a line of 1x60000 pixels would be resized to gigabytes, of
    which the centre crop keeps little."""
    _, height, width = image.shape
    # The largest rectangle in the image that has the shape of the crop, rounded up.
    tall, wide = min(height, -(-width * crop[0] // crop[1])), min(width, -(-height * crop[1] // crop[0]))
    if height <= _LONGEST * tall and width <= _LONGEST * wide:
        return image
    centre: Tensor = transforms.center_crop(image, [min(height, _LONGEST * tall), min(width, _LONGEST * wide)])
    return centre
