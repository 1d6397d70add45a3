"""A decoded set in memory: the synthetic images, and any set small enough to keep."""

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cnnjepa.data.source import ImageSource, Subset
from cnnjepa.data.synthetic import CLASS_NAMES, render
from cnnjepa.errors import ImageError, RunError
from cnnjepa.schemas import SyntheticData


class ResidentSource:
    """Images uint8 [N, 3, H, W] and labels int64 [N] in memory, with the ImageSource interface."""

    def __init__(
        self, images: Tensor, labels: Tensor, class_names: Sequence[str], fingerprint: str, name: Callable[[int], str]
    ) -> None:
        self.images, self.labels, self.class_names = images, labels, class_names
        self._fingerprint, self._name = fingerprint, name

    def load(self, index: int) -> Tensor:
        return self.images[index]

    def name(self, index: int) -> str:
        return self._name(index)

    def fingerprint(self) -> str:
        return self._fingerprint


def subset(source: ImageSource, indices: Tensor) -> ImageSource:
    """Some images of a source (int64 indices); resident if the source is."""
    few = Subset(source, indices)
    if not isinstance(source, ResidentSource):
        return few
    return ResidentSource(source.images[indices], few.labels, few.class_names, few.fingerprint(), few.name)


def open_synthetic(config: SyntheticData) -> dict[str, ResidentSource]:
    """Both splits, drawn; the fingerprint is of the pixels."""
    sources = {}
    for split, count in (("train", config.train_images), ("val", config.val_images)):
        images, labels = render(split, count, config.image_size, config.drawing_seed)  # type: ignore[arg-type]
        digest = hashlib.sha256(images.numpy().tobytes()).hexdigest()
        sources[split] = ResidentSource(images, labels, CLASS_NAMES, digest, f"synthetic {split} image {{}}".format)
    return sources


def decoded_size(source: ImageSource, on_error: str) -> tuple[int, int, int]:
    """Shape [3, H, W] of the first image that can be read."""
    for index in range(source.labels.numel()):
        try:
            _, height, width = source.load(index).shape
        except ImageError:
            if on_error == "raise":
                raise
        else:
            return 3, height, width
    raise RunError("no image of this set can be read; `cnnjepa data check PATH` lists what is wrong")


def decode_all(
    source: ImageSource, on_error: str, shape: tuple[int, int, int]
) -> tuple[ResidentSource, list[str]] | str:
    """The whole set decoded, without the unreadable images if `on_error` is `skip`, and the names of those.

    Gives instead the name of the first image that is not of `shape`, because such a set cannot be resident.
    """
    count = source.labels.numel()
    images = torch.empty(count, *shape, dtype=torch.uint8)
    kept: list[int] = []
    skipped: list[str] = []
    for index in range(count):
        try:
            image = source.load(index)
        except ImageError as error:
            if on_error == "raise":
                raise
            skipped.append(str(error))
            continue
        if image.shape != shape:
            return source.name(index)
        images[len(kept)] = image
        kept.append(index)
    indices = torch.tensor(kept)
    resident = ResidentSource(
        images[: len(kept)],
        source.labels[indices],
        source.class_names,
        source.fingerprint(),
        Subset(source, indices).name,
    )
    return resident, skipped
