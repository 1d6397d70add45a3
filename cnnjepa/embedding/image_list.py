"""The images of a set in one list, with their names and labels."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from cnnjepa.data.open import whole_sources
from cnnjepa.data.source import ImageSource
from cnnjepa.embedding.request import Split
from cnnjepa.schemas import ConfigError, DataConfig


class ImageList:
    """The images of some splits, one split after the other, as one source."""

    def __init__(self, splits: dict[str, ImageSource], folder: Path | None = None) -> None:
        """`folder` is left out of the images' names."""
        self._splits, self._folder = splits, folder
        self._ends = torch.tensor([source.labels.numel() for source in splits.values()]).cumsum(0).tolist()
        self.labels: Tensor = torch.cat([source.labels for source in splits.values()])
        self.class_names: Sequence[str] = next(iter(splits.values())).class_names

    def _at(self, index: int) -> tuple[str, ImageSource, int]:
        first = 0
        for (split, source), end in zip(self._splits.items(), self._ends, strict=True):
            if index < end:
                return split, source, index - first
            first = end
        raise IndexError(index)

    def load(self, index: int) -> Tensor:
        _, source, place = self._at(index)
        return source.load(place)

    def name(self, index: int) -> str:
        """Return the image's name: its path below the folder of the set."""
        _, source, place = self._at(index)
        name = source.name(place)
        return name.removeprefix(f"{self._folder}/") if self._folder is not None else name

    def split(self, index: int) -> str:
        """Return the split to which the image belongs."""
        return self._at(index)[0]

    def label(self, index: int) -> str | None:
        """Return the name of the image's class; None without labels."""
        return str(self.class_names[int(self.labels[index])]) if self.class_names else None

    def fingerprint(self) -> str:
        parts = [f"{split} {source.fingerprint()}" for split, source in self._splits.items()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def list_images(config: DataConfig, split: Split) -> ImageList:
    """Open the set and list its images. Raises ConfigError if there are none."""
    sources = whole_sources(config)
    chosen = {name: source for name, source in sources.items() if split in ("all", name) and source.labels.numel()}
    if not chosen:
        raise ConfigError(f"{config.dataset_name} has no images" + (f" in its split {split}" if split != "all" else ""))
    return ImageList(chosen, config.images_path)
