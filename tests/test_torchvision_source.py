"""The data sets of torchvision."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
from image_sets import refused

from cnnjepa.data import open_data
from cnnjepa.schemas import (
    TorchvisionData,
)


def write_cifar10(root: Path) -> np.ndarray:
    """Ten images a batch in CIFAR-10's pickled layout; gives the training pixels [50, 3, 32, 32]."""
    base = root / "cifar-10-batches-py"
    base.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 3072), dtype=np.uint8)
    names = [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]
    for n, name in enumerate(names):
        batch = {"data": pixels[10 * n : 10 * n + 10], "labels": [i % 10 for i in range(10)]}
        (base / name).write_bytes(pickle.dumps(batch))
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class {i}" for i in range(10)]}))
    return pixels.reshape(60, 3, 32, 32)


def test_torchvisions_cifar10_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = write_cifar10(tmp_path)
    for hook in ("_check_integrity",):  # these files are ours, so their checksums are not torchvision's
        monkeypatch.setattr(torchvision.datasets.CIFAR10, hook, lambda self: True)
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda path, md5=None: Path(path).is_file())
    data = open_data(TorchvisionData(path=tmp_path, image_size=32))
    assert data.resident and data.name == "cifar10" and data.classes == 10
    assert data.train.labels.tolist() == list(range(10)) * 5
    assert data.train.class_names == [f"class {i}" for i in range(10)]
    for i in (0, 17, 49):
        assert np.array_equal(data.train.load(i).numpy(), pixels[i])
    assert np.array_equal(data.val.load(3).numpy(), pixels[53])


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "stl10", "imagenette"])
def test_a_torchvision_set_that_is_not_there_is_refused(tmp_path: Path, name: Any) -> None:
    message = refused(TorchvisionData(path=tmp_path, name=name)).replace("\n", " ")
    assert f"data.path {tmp_path} does not hold {name}" in message and "data.download=true" in message
    assert "data.path is not set" in refused(TorchvisionData(name=name))
    assert list(tmp_path.iterdir()) == []
