"""A small folder of images, and archives of it, for the tests of scans."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cnnjepa.schemas import FolderData

IMAGES = 6  # of each class in training; half as many in validation


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    seed = 0
    for split, count in (("train", IMAGES), ("val", IMAGES // 2)):
        for name in ("cat", "dog"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for i in range(count):
                (tmp_path / "set" / split / name / f"{i}.png").write_bytes(png(seed))
                seed += 1
    return tmp_path / "set"


def tar_of(root: Path, name: str = "set.tar") -> Path:
    """An archive of the folder as `tar` writes it, links and all."""
    path = root.with_name(name)
    with tarfile.open(path, "w:gz" if name.endswith("gz") else "w") as tar:
        for item in sorted(root.iterdir()):
            tar.add(item, item.name)
    return path


def config_of(path: Path, **settings: Any) -> FolderData:
    return FolderData(**{"path": path, "image_size": 16, "resident": "never", **settings})
