"""The example sets that `cnnjepa demo-data` draws."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import cnnjepa
from numpy.typing import NDArray
from PIL import Image

from cnnjepa.data.examples import write_examples
from cnnjepa.data.open import open_data
from cnnjepa.schemas import FolderData


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    assert write_examples(folder) == {"photos": 480, "xrays": 112, "tiles": 144, "cells": 96}
    return folder


def test_photographs_have_no_labels_and_days_stay_together(examples: Path) -> None:
    data = open_data(FolderData(path=examples / "photos", groups=-1, resident="never"))
    assert not data.labelled and (data.train.labels.numel(), data.val.labels.numel()) == (400, 80)
    assert data.train.load(0).shape != data.train.load(1).shape  # several sizes


def along(values: NDArray[np.float64]) -> bool:
    """Return whether values change more along rows than down columns."""
    return bool(np.abs(np.diff(values, axis=1)).mean() > np.abs(np.diff(values, axis=0)).mean())


@pytest.mark.parametrize(
    ("reading", "least", "most"),
    [(lambda v: v & 0xFF, 1.0, 1.0), (lambda v: v >> 8, 0.3, 0.7)],
    ids=["all bits", "8 bits"],
)
def test_classes_of_the_xrays_differ_below_the_eighth_bit(
    examples: Path, reading: Callable[[NDArray[np.int64]], NDArray[np.int64]], least: float, most: float
) -> None:
    data = open_data(FolderData(path=examples / "xrays", channels=1, dtype="uint16", resident="never"))
    assert list(data.train.class_names) == ["across", "along"]
    right = 0
    for index in range(64):
        pixels = data.train.load(index)[0].numpy().astype(np.int64)
        right += along(reading(pixels).astype(np.float64)) == bool(data.train.labels[index])
    assert least <= right / 64 <= most


def test_tiles_have_four_channels_and_cells_a_mask_of_their_name(examples: Path) -> None:
    kind = {"channels": 4, "dtype": "uint16", "range": (0, 10_000), "resident": "never"}
    data = open_data(FolderData(path=examples / "tiles", **kind))
    assert list(data.train.class_names) == ["forest", "town", "water"] and data.train.load(0).shape == (4, 64, 64)
    assert max(float(data.train.load(i).float().max()) for i in range(0, 96, 7)) > 2000
    cells = examples / "cells"
    images, masks = (sorted(path.name for path in (cells / part).iterdir()) for part in ("images", "masks"))
    assert images == masks and len(masks) == 48
    values = np.unique(np.asarray(Image.open(cells / "masks" / masks[0])))
    assert values.tolist() == [0, 1, 2]


@pytest.mark.processes
def test_the_command_draws_the_same_files_each_time(tmp_path: Path, examples: Path) -> None:
    done = cnnjepa("demo-data", str(tmp_path / "again"))
    assert done.returncode == 0 and f"{tmp_path / 'again' / 'xrays'}: 112 files" in done.stdout
    for file in (path for path in examples.rglob("*.*") if path.is_file()):
        assert (tmp_path / "again" / file.relative_to(examples)).read_bytes() == file.read_bytes()
