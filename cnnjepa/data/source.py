"""The interface of every source of images."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from cnnjepa.data.scan import LeftOut
from cnnjepa.schemas.pixels import PixelKind


class Images(Protocol):
    """Images addressed by index. Safe to use from several processes after a fork."""

    labels: Tensor
    """int64 [N], classes numbered from 0; all 0 without labels."""

    def load(self, index: int) -> Tensor:
        """Load the image as [channels, H, W] of the type that `data.channels` and `data.dtype` say. Raises ImageError,
        which names the image, if it cannot be read."""


class ImageSource(Images, Protocol):
    """Images of one split, with what identifies them. Classes are numbered in the order of `class_names`."""

    class_names: Sequence[str]
    """Names of the classes; empty without labels."""

    def name(self, index: int) -> str:
        """Return a name by which a user can find the image."""

    def fingerprint(self) -> str:
        """Return a hex digest of the set. It covers the pixels if they are in memory, otherwise names, labels and
        sizes, because reading a large set to hash it takes hours. Moving the set does not change the digest."""


@runtime_checkable
class EncodedSource(ImageSource, Protocol):
    """A source of encoded image files, which decides on the form of its pixels when it decodes them."""

    pixels: PixelKind
    """The form in which images are decoded."""

    def read(self, index: int) -> bytes:
        """Return the encoded image. Raises ImageError, which names the image, if it cannot be read."""


class Splits(dict[str, ImageSource]):
    """Both splits of a set, keyed `train` and `val`, and facts about the set that the user should know."""

    def __init__(self, sources: Mapping[str, ImageSource], left_out: LeftOut | None = None) -> None:
        super().__init__(sources)
        self.left_out = left_out or LeftOut()
        """Files that the scan left out, by reason."""
        self.lost: list[str] = []
        """Folders of the splits that cannot be read, by name and reason."""
        self.notes: list[str] = []
        """Warnings about the set as a whole."""
        self.found = ""
        """Number of images, classes and splits and where they come from, in one line; empty if the source is known by
        its name."""


def stratified(labels_N: Tensor, count: int) -> Tensor:
    """Return the indices (int64, ascending) of `count` images, spread evenly over classes: the first image of each
    class, then the second of each, and so on.

    Raises ValueError if fewer than `count` images exist.
    """
    if count > labels_N.numel():
        raise ValueError(f"{count} images asked for, {labels_N.numel()} exist")
    by_class = labels_N.argsort(stable=True)
    counts = torch.bincount(labels_N)
    starts = counts.cumsum(0) - counts
    rank_in_class = torch.empty_like(labels_N)
    rank_in_class[by_class] = torch.arange(labels_N.numel()) - starts[labels_N[by_class]]
    return rank_in_class.argsort(stable=True)[:count].sort().values


def spread(source: ImageSource, count: int) -> Tensor:
    """Return the indices (int64, ascending) of `count` images, spread evenly over classes; without labels, evenly over
    the order of the set. Raises ValueError if fewer than `count` images exist."""
    images = source.labels.numel()
    if source.class_names or count > images:
        return stratified(source.labels, count)
    return torch.arange(count) * images // max(count, 1)


def groups_of(source: ImageSource) -> Tensor | None:
    """Return the group of every image, int64 [N], whose images must not be divided; None for a source without
    `groups`."""
    groups: Tensor | None = getattr(source, "groups", None)
    return groups


class Unlabelled:
    """A source without its labels."""

    def __init__(self, source: ImageSource) -> None:
        self._source = source
        self.labels = torch.zeros_like(source.labels)
        self.class_names: Sequence[str] = ()

    def load(self, index: int) -> Tensor:
        return self._source.load(index)

    def name(self, index: int) -> str:
        return self._source.name(index)

    def fingerprint(self) -> str:
        return hashlib.sha256(f"unlabelled {self._source.fingerprint()}".encode()).hexdigest()


class Subset:
    """Some images of a source, with the same interface."""

    def __init__(self, source: ImageSource, indices: Tensor) -> None:
        self._source, self._indices = source, indices
        self.labels = source.labels[indices]
        self.class_names = source.class_names
        groups = groups_of(source)
        self.groups = None if groups is None else groups[indices]

    def load(self, index: int) -> Tensor:
        return self._source.load(int(self._indices[index]))

    def name(self, index: int) -> str:
        return self._source.name(int(self._indices[index]))

    def fingerprint(self) -> str:
        return self._source.fingerprint()
