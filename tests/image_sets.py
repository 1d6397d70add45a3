"""Small sets of images that tests write, and their batches.

Shapes: B images, H x W pixels.
"""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cnnjepa.data import DataSet, open_data
from cnnjepa.data.batches import Order, TrainingBatch, training_batches
from cnnjepa.schemas import (
    ConfigError,
    DataConfig,
    FolderData,
)

CPU = torch.device("cpu")


CLASSES = ("ant", "bee", "cow")


TRAIN, VAL = 5, 2  # images a class


def picture(seed: int, height: int, width: int) -> Tensor:
    """A smooth random picture, uint8 [3, H, W]."""
    coarse = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
    return (fine[0].clamp(0, 1) * 255).round().to(torch.uint8)


def noise(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randint(
        0, 256, (count, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def encoded(image: Tensor | np.ndarray, kind: str = "PNG") -> bytes:
    """A picture uint8 [3, H, W], or an array [H, W(, C)], encoded by Pillow, which decodes nothing here."""
    buffer = io.BytesIO()
    array = image.permute(1, 2, 0).numpy() if isinstance(image, Tensor) else image
    Image.fromarray(array).save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return buffer.getvalue()


def write_set(root: Path, square: int | None = None, train: int = TRAIN, classes: tuple[str, ...] = CLASSES) -> Path:
    """An ImageFolder of JPEGs and PNGs of several sizes, or all of `square` pixels."""
    seed = 0
    for split, count in (("train", train), ("val", VAL)):
        for name in classes:
            (root / split / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                seed += 1
                height, width = (square, square) if square else (24 + 3 * (seed % 5), 20 + 5 * (seed % 7))
                image = picture(seed, height, width)
                jpeg = i % 2 == 0
                file = root / split / name / f"{i}.{'JPEG' if jpeg else 'png'}"
                file.write_bytes(encoded(image, "JPEG" if jpeg else "PNG"))
    return root


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of several sizes."""
    return write_set(tmp_path_factory.mktemp("sizes") / "animals")


@pytest.fixture(scope="session")
def square_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of 40 x 40 pixels."""
    return write_set(tmp_path_factory.mktemp("square") / "animals", square=40)


@pytest.fixture
def broken_folder(tmp_path: Path) -> Path:
    """Square images, of which one training JPEG is cut short and one validation PNG is empty."""
    root = write_set(tmp_path / "broken", square=40)
    cut = root / "train" / "bee" / "2.JPEG"
    cut.write_bytes(cut.read_bytes()[:-200])
    (root / "val" / "cow" / "1.png").write_bytes(b"")
    return root


BROKEN = ("train/bee/2.JPEG", "val/cow/1.png")


def archive(source: Path, target: Path, inside: str = "") -> Path:
    """A tar of `source`'s content below the folder `inside`, in reversed order."""
    with tarfile.open(target, "w:gz" if target.suffix in (".gz", ".tgz") else "w") as tar:
        for file in sorted(source.rglob("*"), reverse=True):
            if file.is_file():
                tar.add(file, arcname=f"{inside}{file.relative_to(source)}")
    return target


def config_of(path: Path, **settings: Any) -> FolderData:
    return FolderData(**{"path": path, "image_size": 32, "resident": "never", **settings})


def order_of(data: DataSet, batch_size: int = 4, rank: int = 0, world_size: int = 1, seed: int = 3) -> Order:
    return Order(data.train.labels.numel(), batch_size, rank, world_size, seed)


def batches(
    data: DataSet, config: DataConfig, order: Order, first: int, last: int, workers: int = 0
) -> list[TrainingBatch]:
    return list(training_batches(data, config, order, first, last, workers, CPU))


def stacked(found: list[TrainingBatch]) -> Tensor:
    return torch.stack([batch.pixels for batch in found])


def refused(config: DataConfig, batch_size: int = 2, processes: int = 1) -> str:
    with pytest.raises(ConfigError) as caught:
        open_data(config, batch_size, processes)
    message = str(caught.value)
    assert "\n" not in message
    return message
