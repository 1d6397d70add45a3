"""Training batches from any step on, independent of the number of workers.

The order of an epoch is a function of (seed, epoch). Crops and colours are a function of (seed, epoch, image, view).
Every process computes the same order and takes its own part of each global batch. The last partial batch is dropped.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler, default_collate
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from cnnjepa.data.augmentation import Augmenter
from cnnjepa.data.colours import colour_one, draw_colours
from cnnjepa.data.crops import Crops, draw_crops
from cnnjepa.data.open import DataSet
from cnnjepa.data.recolour import recolour
from cnnjepa.data.resample import crop_and_resize
from cnnjepa.data.resident import ResidentSource
from cnnjepa.data.source import ImageSource
from cnnjepa.data.workers import load_batches
from cnnjepa.errors import ImageError, RunError
from cnnjepa.randomness import generator
from cnnjepa.schemas import DataConfig, View
from cnnjepa.schemas.views import PLAIN

BYTES = (0.0, 255.0)  # the range of pixels


@dataclass(frozen=True)
class Order:
    """The images of every step on every process."""

    images: int
    batch_size: int
    """Images per step on one process."""
    rank: int
    world_size: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Number of full global batches in the training set."""
        return self.images // (self.batch_size * self.world_size)

    def batch_indices(self) -> Tensor:
        """Global batch indices of this process, int64 [batch_size]."""
        first = self.rank * self.batch_size
        return torch.arange(first, first + self.batch_size)

    def walk(self, first_step: int, last_step: int) -> Iterator[tuple[int, Tensor]]:
        """Yield (epoch, image indices [batch_size]) for the steps [first_step, last_step)."""
        order = torch.empty(0)
        ordered_epoch = -1
        for step in range(first_step, last_step):
            epoch, place = divmod(step, self.steps_per_epoch)
            if epoch != ordered_epoch:
                order, ordered_epoch = (
                    torch.randperm(self.images, generator=generator(self.seed, "order", epoch)),
                    epoch,
                )
            yield epoch, order[place * self.batch_size * self.world_size + self.batch_indices()]


class Normalizer:
    """Converts pixels in [0, 255] on a device to normalised float32 (or `dtype`), optionally channels-last."""

    def __init__(self, config: DataConfig, device: torch.device, channels_last: bool = True) -> None:
        self._mean = torch.tensor(config.mean, device=device).view(3, 1, 1) * 255
        self._scale = 1 / (torch.tensor(config.std, device=device).view(3, 1, 1) * 255)
        self._format = torch.channels_last if channels_last else torch.contiguous_format

    def __call__(self, pixels_BCHW: Tensor) -> Tensor:
        """Normalise pixels: [B, 3, H, W] uint8 or float → float32 of the same shape."""
        return ((pixels_BCHW.float() - self._mean) * self._scale).contiguous(memory_format=self._format)

    def undo(self, images_BCHW: Tensor) -> Tensor:
        """Convert normalised images back to uint8 pixels."""
        return (images_BCHW / self._scale + self._mean).round_().clamp_(0, 255).to(torch.uint8)


class TrainingBatch(NamedTuple):
    """The images of one step on one process."""

    views: tuple[Tensor, ...]
    """One tensor [B, 3, S, S] in [0, 255] per view; S may differ between views. From loader processes they are uint8
    and channels-last; from resident data they are float32 on the device."""
    labels: Tensor
    """int64 [B], on the CPU."""
    skipped: list[str]
    """Unreadable images, by name and reason. Each was replaced by the next readable image."""

    @property
    def pixels(self) -> Tensor:
        """Pixels of the first view."""
        return self.views[0]


def training_batches(
    data: DataSet,
    config: DataConfig,
    order: Order,
    first_step: int,
    last_step: int,
    workers: int,
    device: torch.device,
    views: tuple[View, ...] | None = None,
) -> Generator[TrainingBatch]:
    """Yield the batches of the steps [first_step, last_step), with the views that the method uses. The default is one
    view with unchanged colours. Close the generator when an error ends the iteration early (see `load_batches`)."""
    views = views or (View(PLAIN, config.image_size, config.augmentation),)
    if isinstance(data.train, ResidentSource):
        yield from _resident(data.train, order, first_step, last_step, device, views)
        return
    yield from load_batches(
        _CroppedImages(data.train, config, order.seed, views),
        workers,
        ahead=4,
        batch_sampler=cast("Sampler[list[int]]", _Steps(order, first_step, last_step)),
        pin_memory=device.type == "cuda",
    )


def _resident(
    source: ResidentSource,
    order: Order,
    first_step: int,
    last_step: int,
    device: torch.device,
    views: tuple[View, ...],
) -> Iterator[TrainingBatch]:
    images = source.images.to(device)
    height, width = images.shape[2:]
    augment = Augmenter(views, BYTES, order.seed)
    for epoch, index_B in order.walk(first_step, last_step):
        here_B = index_B.to(device)
        size_B, whole = torch.ones_like(here_B), images[here_B]
        seen = []
        for number, view in enumerate(views):
            crops = draw_crops(view.augmentation, here_B, size_B * height, size_B * width, order.seed, epoch, number)
            pixels = crop_and_resize(whole, crops, view.size, view.augmentation.interpolation)
            if not view.colours.plain:
                drawn = draw_colours(view.colours, index_B, order.seed, epoch, number)
                pixels = recolour(pixels, drawn, view.colours)
            seen.append(augment(pixels, number, index_B, epoch))
        yield TrainingBatch(tuple(seen), source.labels[index_B], [])


class _Steps:
    """A batch sampler over all remaining steps, so that loader processes do not restart between epochs."""

    def __init__(self, order: Order, first_step: int, last_step: int) -> None:
        self._order, self._first, self._last = order, first_step, last_step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for epoch, index_B in self._order.walk(self._first, self._last):
            yield [(epoch, index) for index in index_B.tolist()]

    def __len__(self) -> int:
        return self._last - self._first


class _CroppedImages(Dataset[TrainingBatch]):
    """Decodes, crops and colours one batch in a loader process. The error for an unreadable image is returned, not
    raised, because an exception raised here would reach the trainer as a traceback."""

    def __init__(self, source: ImageSource, config: DataConfig, seed: int, views: tuple[View, ...]) -> None:
        self._source, self._config, self._seed, self._views = source, config, seed, views
        self._augment = Augmenter(views, BYTES, seed)

    def __getitems__(self, keys: list[tuple[int, int]]) -> TrainingBatch | RunError:
        images: list[Tensor] = []
        labels: list[int] = []
        skipped: list[str] = []
        try:
            for _, index in keys:
                image, label = self._load(index, skipped)
                images.append(image)
                labels.append(label)
            index_B, epoch = torch.tensor([index for _, index in keys]), keys[0][0]
            seen = tuple(
                self._augment(self._view(number, images, keys), number, index_B, epoch)
                for number in range(len(self._views))
            )
        except RunError as error:
            return error
        return TrainingBatch(seen, torch.tensor(labels), skipped)

    def _view(self, number: int, images: list[Tensor], keys: list[tuple[int, int]]) -> Tensor:
        index_B, epoch = torch.tensor([index for _, index in keys]), keys[0][0]
        heights = torch.tensor([image.shape[1] for image in images])
        widths = torch.tensor([image.shape[2] for image in images])
        view = self._views[number]
        crops = draw_crops(view.augmentation, index_B, heights, widths, self._seed, epoch, number)
        cropped = [_crop(image, view, crops, place) for place, image in enumerate(images)]
        if not view.colours.plain:
            colours = draw_colours(view.colours, index_B, self._seed, epoch, number)
            cropped = [
                colour_one(image.contiguous(), colours, place, view.colours) for place, image in enumerate(cropped)
            ]
        # Whole rows of pixels are copied. In a loader process they go straight into the memory that is shared with the
        # trainer.
        pixels_BHWC: Tensor = default_collate([image.permute(1, 2, 0) for image in cropped])
        return pixels_BHWC.permute(0, 3, 1, 2)

    def _load(self, index: int, skipped: list[str]) -> tuple[Tensor, int]:
        """Return the image and its label. With `on_error: skip`, an unreadable image is replaced by the next readable
        one."""
        count = self._source.labels.numel()
        for offset in range(count):
            try:
                found = (index + offset) % count
                return self._source.load(found), int(self._source.labels[found])
            except ImageError as error:
                if self._config.on_error == "raise":
                    raise
                skipped.append(str(error))
        raise RunError("no image of this set can be read; `cnnjepa data check PATH` lists what is wrong")


def _crop(image: Tensor, view: View, crops: Crops, place: int) -> Tensor:
    """Crop, flip and resize: uint8 [3, H, W] → [3, S, S]. The pixels equal those of torchvision's `resized_crop` and
    `horizontal_flip`."""
    size, interpolation = [view.size, view.size], InterpolationMode(view.augmentation.interpolation)
    top, left, height, width = (int(side[place]) for side in crops[:4])
    # Decoded pixels are channels-last, and the crop remains so once its rows are contiguous. torch resizes this layout
    # directly; otherwise it would first copy the crop into three planes (0.14 instead of 0.19 ms at 224 px).
    part = image[None, :, top : top + height, left : left + width].contiguous(memory_format=torch.channels_last)
    crop = transforms.resize(part, size, interpolation)[0]
    return transforms.horizontal_flip(crop) if crops.flip[place] else crop
