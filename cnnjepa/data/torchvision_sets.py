"""Data sets read by torchvision: CIFAR-10, CIFAR-100, STL-10, Imagenette."""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
import torchvision
from torch import Tensor

from cnnjepa.data.pixels import from_pillow
from cnnjepa.data.source import Splits
from cnnjepa.errors import ImageError
from cnnjepa.places import image_path
from cnnjepa.schemas import ConfigError, TorchvisionData
from cnnjepa.schemas.pixels import PixelKind


class TorchvisionSource:
    """One split of a torchvision data set of (PIL image, label) pairs."""

    def __init__(
        self, data: Any, labels: Sequence[int], class_names: Sequence[str], name: str, pixels: PixelKind
    ) -> None:
        self._data, self._name, self.pixels = data, name, pixels
        self.labels: Tensor = torch.tensor(labels, dtype=torch.int64)
        self.class_names = class_names

    def load(self, index: int) -> Tensor:
        try:
            return from_pillow(self._data[index][0], self.pixels)
        except (OSError, ValueError, SyntaxError) as error:
            raise ImageError(f"{self.name(index)} cannot be decoded ({error})") from None

    def name(self, index: int) -> str:
        return f"{self._name}[{index}]"

    def fingerprint(self) -> str:
        """Return a digest of name and labels. torchvision itself verifies the checksums of these archives."""
        return hashlib.sha256(repr((self._name, self.labels.tolist())).encode()).hexdigest()


def open_torchvision(config: TorchvisionData) -> Splits:
    """Open both splits. Raises ConfigError if the files are absent and `download` is false."""
    sets = torchvision.datasets
    root, download = str(image_path(config)), config.download
    try:
        match config.name:
            case "cifar10" | "cifar100":
                kind = sets.CIFAR10 if config.name == "cifar10" else sets.CIFAR100
                pair = [kind(root, train=train, download=download) for train in (True, False)]
                labels = [data.targets for data in pair]
            case "stl10":
                pair = [sets.STL10(root, split=split, download=download) for split in ("train", "test")]
                labels = [data.labels.tolist() for data in pair]
            case "imagenette":
                pair = [
                    sets.Imagenette(root, split=split, size="320px", download=download) for split in ("train", "val")
                ]
                labels = [[label for _, label in data._samples] for data in pair]
    except RuntimeError as error:
        raise ConfigError(
            f"data.path {root} does not hold {config.name} ({error}); put its files there or set data.download=true"
        ) from None
    return Splits(
        {
            split: TorchvisionSource(data, own, [str(c) for c in data.classes], f"{config.name}/{split}", config.pixels)
            for split, data, own in zip(("train", "val"), pair, labels, strict=True)
        }
    )
