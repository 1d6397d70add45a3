"""HDF5 files in the authors' layout."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from image_sets import batches, encoded, order_of, picture, refused, stacked

from cnnjepa.data import open_data
from cnnjepa.data.open import open_sources
from cnnjepa.errors import ImageError
from cnnjepa.schemas import (
    HDF5Data,
)


def write_hdf5(path: Path, images: list[bytes], labels: list[int], opaque: bool = False) -> None:
    """The authors' layout: groups `images` and `labels`, keys "0".."N-1", encoded bytes."""
    with h5py.File(path, "w") as file:
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            stored = np.void(image) if opaque else np.frombuffer(image, dtype=np.uint8)
            file.create_dataset(f"images/{i}", data=stored)
            file.create_dataset(f"labels/{i}", data=label if opaque else np.array([label]))


@pytest.mark.parametrize("opaque", [False, True])
def test_hdf5_gives_the_images_and_labels_in_the_order_of_their_numbers(tmp_path: Path, opaque: bool) -> None:
    pictures = [picture(i, 24 + i, 30) for i in range(12)]  # twelve, so that "10" sorts before "2"
    files = [encoded(one) for one in pictures]
    labels = [i % 3 for i in range(12)]
    write_hdf5(tmp_path / "train.h5", files, labels, opaque)
    write_hdf5(tmp_path / "val.h5", files[:3], labels[:3], opaque)
    sources = open_sources(HDF5Data(path=tmp_path, image_size=32))
    assert sources["train"].labels.tolist() == labels
    assert sources["train"].class_names == ["0", "1", "2"]
    for i in range(12):
        assert torch.equal(sources["train"].load(i), pictures[i])
    assert sources["train"].name(10) == f"{tmp_path}/train.h5:images/10"
    assert sources["train"].fingerprint() != sources["val"].fingerprint()


def test_hdf5_serves_loader_processes(tmp_path: Path) -> None:
    files = [encoded(picture(i, 32, 32)) for i in range(8)]
    for split in ("train", "val"):
        write_hdf5(tmp_path / f"{split}.h5", files, [i % 2 for i in range(8)])
    config = HDF5Data(path=tmp_path, image_size=32, resident="never")
    data = open_data(config)
    data.train.load(0)  # a handle is open before the fork
    one = stacked(batches(data, config, order_of(data), 0, 3))
    assert torch.equal(one, stacked(batches(data, config, order_of(data), 0, 3, workers=2)))


def test_a_corrupt_image_in_hdf5_is_named(tmp_path: Path) -> None:
    good = encoded(picture(0, 32, 32))
    write_hdf5(tmp_path / "train.h5", [good, good[:40]], [0, 1])
    write_hdf5(tmp_path / "val.h5", [good, good], [0, 1])
    with pytest.raises(ImageError, match=r"train\.h5:images/1 cannot be decoded"):
        open_sources(HDF5Data(path=tmp_path))["train"].load(1)


def test_hdf5_without_files_groups_or_keys_is_refused(tmp_path: Path) -> None:
    config = HDF5Data(path=tmp_path)
    assert "data.path is not set" in refused(HDF5Data())
    message = refused(config)
    assert "data.train_file" in message and "holds no .h5 file" in message
    (tmp_path / "train.h5").write_bytes(b"not hdf5")
    (tmp_path / "val.h5").write_bytes(b"not hdf5")
    assert "cannot be opened as HDF5" in refused(config)
    with h5py.File(tmp_path / "train.h5", "w") as file:
        file.create_group("images")
    assert "lacks the group(s) labels" in refused(config)
    with h5py.File(tmp_path / "train.h5", "w") as file:
        file.create_dataset("images/1", data=np.zeros(3, np.uint8))
        file.create_dataset("labels/1", data=0)
    assert "lacks a key between 0 and N-1" in refused(config)
    write_hdf5(tmp_path / "train.h5", [b"x", b"x"], [0, -1])
    assert "negative labels" in refused(config)
