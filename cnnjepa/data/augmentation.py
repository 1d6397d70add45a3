"""Changes of the pixels of a view after crop, flip and colours, built-in and user-defined."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from cnnjepa.errors import RunError
from cnnjepa.implementation import implementation_of
from cnnjepa.randomness import key, layer_randomness, uniforms
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.augmentation import IMPLEMENTATIONS, AugmentationSection
from cnnjepa.schemas.views import View


class ImageDraws:
    """Random numbers for the images of a batch. Every number is a function of (seed, epoch, image, view, purpose), so
    that it does not depend on the other images of the batch, on the number of workers or on a resume."""

    def __init__(self, index_B: Tensor, seed: int, epoch: int, view: int, device: torch.device) -> None:
        self._index_B, self._device = index_B, device
        self._seed, self._counters = seed, (epoch, view)

    def uniforms(self, purpose: str, count: int) -> Tensor:
        """Return `count` numbers in [0, 1) per image, float64 [B, count] on the pixels' device. The same purpose gives
        the same numbers."""
        draw_key = key(self._seed, f"augmentation/{purpose}", *self._counters)
        return uniforms(draw_key, self._index_B, count).to(self._device)

    def one_by_one(self, pixels_BCHW: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """Return `change` applied to each image [K, H, W] alone, for functions that draw from torch's generators (the
        random transforms of torchvision). The generators are seeded for each image, and their state is restored."""
        changed = []
        for image, seed in zip(pixels_BCHW, self._seeds(), strict=True):
            with _seeded(seed, self._device):
                changed.append(change(image))
        return torch.stack(changed)

    def _seeds(self) -> Sequence[int]:
        drawn = uniforms(key(self._seed, "augmentation", *self._counters), self._index_B, 1)[:, 0]
        return [int(number * 2**53) for number in drawn.tolist()]


@contextlib.contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    with layer_randomness(device):
        torch.manual_seed(seed)
        yield


class Augmentation(ABC):
    """Changes the pixels of every view of the training images, last of all. In the config it is named by
    `data.augmentation.name: package.module:Class`. A nested `Config`, derived from AugmentationSection, holds its
    fields in addition to those of crop and flip."""

    def __init__(self, config: AugmentationSection) -> None:
        self.config = config

    @abstractmethod
    def apply(self, pixels_BCHW: Tensor, draws: ImageDraws) -> Tensor:
        """Return changed pixels of the same shape and type, on the same device. `pixels_BCHW` is float32 [B, K, H, W]
        in [0, 1], on the CPU in loader processes and on the run's device for resident data; it may be changed in place.
        Results are clamped to [0, 1]. Each image's result must be a function of its own pixels and draws alone."""


def augmentation_of(section: AugmentationSection) -> Augmentation | None:
    """Return the augmentation of a section; None if crop and flip are all. Raises ConfigError for a class that is not
    an Augmentation."""
    if not section.CHANGES_PIXELS:
        return None
    found = implementation_of(section, IMPLEMENTATIONS)
    if not issubclass(found, Augmentation):
        raise ConfigError(f"augmentation {section.name}: the class must derive from cnnjepa.extend.Augmentation")
    made: Augmentation = found(section)
    return made


class Augmenter:
    """Applies the augmentations of all views, which are made at the first use, in the process that needs them."""

    def __init__(self, views: tuple[View, ...], bounds: tuple[float, float], seed: int) -> None:
        self._views, self._bounds, self._seed = views, bounds, seed
        self._made: list[Augmentation | None] | None = None

    def __call__(self, pixels_BCHW: Tensor, number: int, index_B: Tensor, epoch: int) -> Tensor:
        """Change the pixels of view `number` of the images `index_B` (int64 [B]) in `epoch`. `pixels_BCHW` has values
        within the bounds; integers are rounded. Returns the same type and shape. Raises RunError if the augmentation
        returns another shape or type."""
        if self._made is None:
            self._made = [augmentation_of(view.augmentation) for view in self._views]
        own = self._made[number]
        if own is None:
            return pixels_BCHW
        low, high = self._bounds
        unit = (pixels_BCHW.float() - low) / (high - low)
        changed = own.apply(unit, ImageDraws(index_B, self._seed, epoch, number, unit.device))
        if wrong := broken_promise(changed, unit):
            raise RunError(f"augmentation {own.config.name}: {wrong}")
        values = changed.clamp(0, 1) * (high - low) + low
        return values if pixels_BCHW.is_floating_point() else values.round().to(pixels_BCHW.dtype)


def broken_promise(changed: object, given: Tensor) -> str | None:
    """Describe how changed pixels violate the contract of `Augmentation.apply`, or return None."""
    if not isinstance(changed, Tensor):
        return f"apply must give a tensor, not {type(changed).__name__}"
    if (changed.shape, changed.dtype) != (given.shape, given.dtype):
        return f"apply must give {given.dtype} {list(given.shape)}; it gives {changed.dtype} {list(changed.shape)}"
    if changed.device != given.device:
        return f"apply must give pixels on {given.device}; they are on {changed.device}"
    return None
