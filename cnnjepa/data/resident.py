"""A decoded data set in memory: the synthetic images, and any set that fits."""

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cnnjepa.data.jpeg_damage import repaired_images
from cnnjepa.data.pixels import chosen
from cnnjepa.data.source import ImageSource, Splits, Subset
from cnnjepa.data.synthetic import CLASS_NAMES, render
from cnnjepa.errors import ImageError, RunError
from cnnjepa.schemas import SyntheticData


class ResidentSource:
    """Images [N, channels, H, W] (uint8, uint16 or float32) and labels int64 [N] in memory, with the interface of
    ImageSource."""

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        class_names: Sequence[str],
        fingerprint: str,
        name: Callable[[int], str],
        groups: Tensor | None = None,
    ) -> None:
        self.images, self.labels, self.class_names, self.groups = images, labels, class_names, groups
        self._fingerprint, self._name = fingerprint, name

    def load(self, index: int) -> Tensor:
        return self.images[index]

    def name(self, index: int) -> str:
        return self._name(index)

    def fingerprint(self) -> str:
        return self._fingerprint


def subset(source: ImageSource, indices: Tensor) -> ImageSource:
    """Return the images of a source at `indices` (int64); resident if the source is."""
    few = Subset(source, indices)
    if not isinstance(source, ResidentSource):
        return few
    images = chosen(source.images, indices)
    return ResidentSource(images, few.labels, few.class_names, few.fingerprint(), few.name, few.groups)


def open_synthetic(config: SyntheticData) -> Splits:
    """Draw both splits. The fingerprint is computed from the pixels."""
    sources = {}
    for split, count in (("train", config.train_images), ("val", config.val_images)):
        images, labels = render(split, count, config.drawn_size, config.drawing_seed)  # type: ignore[arg-type]
        digest = hashlib.sha256(images.numpy().tobytes()).hexdigest()
        sources[split] = ResidentSource(images, labels, CLASS_NAMES, digest, f"synthetic {split} image {{}}".format)
    return Splits(sources)


def first_image(source: ImageSource, on_error: str) -> Tensor:
    """Return the first image that can be read."""
    for index in range(source.labels.numel()):
        try:
            with repaired_images():  # it is loaded, and named, again
                return source.load(index)
        except ImageError:
            if on_error == "raise":
                raise
    raise RunError("no image of this set can be read; `cnnjepa data check PATH` lists what is wrong")


class Decoded(NamedTuple):
    """A set that was decoded."""

    source: ResidentSource
    skipped: list[str]
    """Unreadable images, which were left out, by name and reason."""
    repaired: list[str]
    """Damaged images that were repaired while reading, by name and reason."""


def decode_all(source: ImageSource, on_error: str, first: Tensor) -> Decoded | str:
    """Decode the whole set. Unreadable images are left out if `on_error` is `skip`.

    If an image does not have the shape of `first`, the set cannot be resident, and the name of the first such image is
    returned instead."""
    count = source.labels.numel()
    images = torch.empty(count, *first.shape, dtype=first.dtype)
    kept: list[int] = []
    skipped: list[str] = []
    repaired: list[str] = []
    for index in range(count):
        try:
            with repaired_images() as found:
                image = source.load(index)
        except ImageError as error:
            if on_error == "raise":
                raise
            skipped.append(str(error))
            continue
        if image.shape != first.shape:
            return source.name(index)
        images[len(kept)] = image
        kept.append(index)
        repaired += found
    some = Subset(source, torch.tensor(kept, dtype=torch.int64))
    resident = ResidentSource(
        images[: len(kept)], some.labels, some.class_names, some.fingerprint(), some.name, some.groups
    )
    return Decoded(resident, skipped, repaired)
