"""HDF5 files: whatever they hold is read rightly or refused by name."""

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from cnnjepa.data.open import open_sources
from cnnjepa.schemas import ConfigError, HDF5Data, load_config, preset_names


def jpeg(seed: int) -> np.ndarray:
    """The bytes of a JPEG of 24 x 24 pixels."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return np.frombuffer(buffer.getvalue(), np.uint8)


def write(root: Path, label: Callable[[int], Any] = lambda i: i % 2, image: Callable[[int], Any] = jpeg) -> Path:
    """Training and validation file of 6 and 4 images; `label` and `image` of training number i are as given."""
    root.mkdir(exist_ok=True)
    for name, count in (("train", 6), ("val", 4)):
        with h5py.File(root / f"{name}.h5", "w") as file:
            for i in range(count):
                content = image(i) if name == "train" else jpeg(i)
                vlen = h5py.vlen_dtype(content.flat[0].dtype) if content.dtype == object else None
                file.create_dataset(f"images/{i}", data=content, dtype=vlen)
                file[f"labels/{i}"] = label(i) if name == "train" else i % 2
    return root


def refusal(root: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        open_sources(HDF5Data(path=root))
    message = str(caught.value)
    assert "\n" not in message
    return message


WHOLE: dict[str, Callable[[int], Any]] = {
    "one in an array": lambda i: np.array([[i % 2]]),
    "of 8 bits": lambda i: np.uint8(i % 2),
    "whole floats": lambda i: float(i % 2),
    "booleans": lambda i: bool(i % 2),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_label_is_a_whole_number_whatever_its_type(tmp_path: Path, kind: str) -> None:
    assert open_sources(HDF5Data(path=write(tmp_path / "set", WHOLE[kind])))["train"].labels.tolist() == [0, 1] * 3


UNFIT: dict[str, tuple[Callable[[int], Any], str]] = {
    "one-hot": (lambda i: np.eye(3)[i % 3], "labels/0 is 3 numbers (a one-hot vector must become the place of its 1)"),
    "text": (lambda i: ["cat", "dog"][i % 2], "labels/0 is text"),
    "fractional": (lambda i: 0.5 + i % 2, "labels/0 is 0.5"),
    "NaN": (lambda i: float("nan") if i == 3 else i % 2, "labels/3 is nan"),
    "infinite": (lambda i: float("inf") if i == 3 else i % 2, "labels/3 is inf"),
    "complex": (lambda i: 1j, "labels/0 is of type complex128"),
    "negative": (lambda i: -1 if i == 2 else i % 2, "labels/2 is -1 (there are no negative labels)"),
    "of 64 bits": (lambda i: np.uint64(2**64 - 1) if i == 4 else i % 2, f"labels/4 is {2**64 - 1}"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_another_label_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    label, what = UNFIT[kind]
    message = refusal(write(tmp_path / "set", label))
    assert f"train.h5:{what}; every label must be one whole number, from 0 to classes - 1" in message


def test_a_label_beyond_the_images_is_refused(tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "set", lambda i: 10**7 if i == 3 else i % 2))
    assert "train.h5:labels/3 is 10000000, and a label must be at most 65535, because there are only 6" in message
    root = write(tmp_path / "set")
    with h5py.File(root / "val.h5", "a") as file:
        file["labels/1"][()] = 2
    message = refusal(root)
    assert "val.h5:labels/1 is 2, and a label must be at most 1, because train.h5 has no label above that" in message


def variable(i: int) -> np.ndarray:
    stored = np.empty(1, object)
    stored[0] = jpeg(i)
    return stored


@pytest.mark.parametrize("image", [variable, lambda i: np.asarray(np.void(jpeg(i).tobytes()))])
def test_images_of_variable_length_and_opaque_ones_are_the_same_bytes(
    tmp_path: Path, image: Callable[[int], Any]
) -> None:
    plain = open_sources(HDF5Data(path=write(tmp_path / "plain")))["train"]
    source = open_sources(HDF5Data(path=write(tmp_path / "set", image=image)))["train"]
    for index in range(6):
        assert torch.equal(source.load(index), plain.load(index))
    assert source.fingerprint() == plain.fingerprint()


@pytest.mark.parametrize(
    ("image", "what"),
    [
        (lambda i: np.zeros((24, 24, 3), np.uint8), "type uint8 and shape (24, 24, 3)"),
        (lambda i: np.zeros(100, np.float32), "type float32 and shape (100,)"),
        (lambda i: np.zeros(100, np.int64), "type int64 and shape (100,)"),
    ],
)
def test_pixels_are_refused_where_encoded_images_are_due(
    tmp_path: Path, image: Callable[[int], Any], what: str
) -> None:
    message = refusal(write(tmp_path / "set", image=image))
    assert f"train.h5:images/0 is of {what}; every image must be the bytes of a JPEG" in message


def test_arrays_and_missing_images_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "set")
    with h5py.File(root / "train.h5", "w") as file:
        file["images"], file["labels"] = np.zeros((6, 8, 8, 3), np.uint8), np.zeros(6)
    message = refusal(root)
    assert "images is one array of shape (6, 8, 8, 3); the file must hold two groups, images and labels" in message
    write(root)
    with h5py.File(root / "train.h5", "a") as file:
        del file["images/5"], file["images/4"]
    assert "train.h5 holds 4 images and 6 labels; every image needs one label" in refusal(root)
    write(root)
    with h5py.File(root / "train.h5", "a") as file:
        del file["images/5"]
        file.create_group("images/5")
    assert "train.h5:images/5 is a group and must be a data set" in refusal(root)


@contextmanager
def held_open(path: Path, code: str) -> Iterator[None]:
    """Another process has the file open and is killed at the end."""
    command = f"import h5py, time; {code.format(str(path))}; print('open', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"open\n"
        yield
        holder.kill()


def test_a_file_that_another_program_writes_is_refused_with_the_cure(tmp_path: Path) -> None:
    root = write(tmp_path / "set")
    with h5py.File(root / "latest.h5", "w", libver="latest") as latest, h5py.File(root / "train.h5") as train:
        for group in ("images", "labels"):
            train.copy(group, latest)
    (root / "latest.h5").rename(root / "train.h5")
    with held_open(root / "train.h5", "file = h5py.File({!r}, 'a')"):
        message = refusal(root)
        assert message.startswith(f"{root}/train.h5 cannot be opened as HDF5 (another program has it open for writing")
    assert "`h5clear -s FILE` makes it readable" in refusal(root)  # the writer was killed


def test_a_damaged_file_is_refused_whatever_byte_is_wrong(tmp_path: Path) -> None:
    root = write(tmp_path / "set")
    whole = (root / "train.h5").read_bytes()
    draw, refused = np.random.default_rng(0), 0
    for number in range(60):
        damaged = bytearray(whole)
        damaged[draw.integers(0, 4096) : draw.integers(0, 4096)] = draw.bytes(2)
        place = tmp_path / str(number)
        place.mkdir()
        (place / "train.h5").write_bytes(damaged)
        (place / "val.h5").write_bytes((root / "val.h5").read_bytes())
        try:
            open_sources(HDF5Data(path=place))
        except ConfigError as error:
            refused += 1
            assert str(place) in str(error) and "\n" not in str(error)
    assert refused > 30


@pytest.mark.parametrize("preset", preset_names())
def test_a_folder_of_hdf5_files_is_recognised_under_every_preset(tmp_path: Path, preset: str) -> None:
    data = load_config(preset, data=write(tmp_path / "set")).data
    usual = load_config(preset).data
    assert isinstance(data, HDF5Data) and data.path == tmp_path / "set"
    assert (data.augmentation, data.mean, data.std) == (usual.augmentation, usual.mean, usual.std)
    assert usual.source == "synthetic" or data.image_size == usual.image_size
    assert load_config(preset, data=tmp_path / "set" / "other.hdf5").data.source == "hdf5"


def test_a_folder_of_images_that_holds_an_hdf5_file_too_is_one_of_images(tmp_path: Path) -> None:
    (tmp_path / "train" / "ant").mkdir(parents=True)
    (tmp_path / "features.h5").touch()
    assert load_config("in100", data=tmp_path).data.source == "folder"
    (tmp_path / "train").rename(tmp_path / "data")
    assert load_config("in100", overrides=["data.source=folder"], data=tmp_path).data.source == "folder"


def test_files_of_other_names_are_named(tmp_path: Path) -> None:
    (tmp_path / "train.hdf5").touch()
    message = refusal(tmp_path)
    assert "train.h5 does not exist; the folder holds train.hdf5: choose one with --set data.train_file=NAME" in message
