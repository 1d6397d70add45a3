"""The authors' HDF5 layout: groups `images` and `labels`, keys "0".."N-1", encoded image bytes.

Every label, and the type and shape of every image, are read when a file is opened, because an HDF5 file can hold
anything. Content that does not follow this layout is refused at that point, by name.
"""

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from cnnjepa.data.decoding import FORMATS, decode
from cnnjepa.data.pixels import RGB8
from cnnjepa.data.readers import cannot_read
from cnnjepa.data.source import Splits
from cnnjepa.errors import ImageError
from cnnjepa.places import image_path
from cnnjepa.schemas import ConfigError, HDF5Data
from cnnjepa.schemas.pixels import PixelKind

_LAYOUT = 'two groups, images and labels, with one data set per image under the keys "0" to "N-1"'


# Only a set with at least one image per class may have more classes than this. A larger label is a stray number, and
# the probes would have an output for every number below it. ImageNet-21k has 21,841 classes.
_MOST_CLASSES = 2**16


class HDF5Source:
    """One file of images. Every process opens its own handle, because HDF5 handles do not survive a fork."""

    def __init__(self, path: Path, pixels: PixelKind = RGB8) -> None:
        self._path, self.pixels = path, pixels
        self._handle: tuple[int, Any] | None = None
        with _opened(path) as file:
            count = _count(file, path)
            labels, sizes = np.empty(count, np.int64), np.empty(count, np.int64)
            for index in range(count):
                labels[index] = _label(_entry(file, path, "labels", index), path)
                sizes[index] = _size(_entry(file, path, "images", index), path)
        self._sizes = sizes
        self.labels: Tensor = torch.from_numpy(labels)
        self.class_names: Sequence[str] = []

    def _file(self) -> Any:
        if self._handle is None or self._handle[0] != os.getpid():
            self._handle = (os.getpid(), h5py.File(self._path, "r"))
        return self._handle[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}

    def load(self, index: int) -> Tensor:
        return decode(self.read(index), self.name(index), self.pixels)

    def read(self, index: int) -> bytes:
        """Return the encoded image. Raises ImageError, which names the image, if it cannot be read."""
        try:
            stored = np.asarray(self._file()["images"][str(index)])
        except OSError as error:
            raise cannot_read(self.name(index), error) from None
        except (KeyError, RuntimeError, ValueError) as error:
            raise ImageError(f"{self.name(index)} cannot be read ({_reason(error)})") from None
        return (stored.reshape(-1)[0] if stored.dtype == object else stored).tobytes()

    def name(self, index: int) -> str:
        return f"{self._path}:images/{index}"

    def fingerprint(self) -> str:
        """Return a digest of labels and encoded sizes."""
        return hashlib.sha256(repr((self.labels.tolist(), self._sizes.tolist())).encode()).hexdigest()


def open_hdf5(config: HDF5Data) -> Splits:
    """Open both splits. Raises ConfigError for missing files or groups, and for files that do not follow the layout."""
    sources, folder = {}, image_path(config)
    for split, name in (("train", config.train_file), ("val", config.val_file)):
        path = folder / name
        if not path.is_file():
            there = sorted(file.name for ending in ("h5", "hdf5") for file in folder.glob(f"*.{ending}"))
            cure = f"the folder holds {', '.join(there)}: choose one with --set data.{split}_file=NAME"
            raise ConfigError(
                f"data.{split}_file {path} does not exist; {cure if there else 'the folder holds no .h5 file'}"
            )
        sources[split] = HDF5Source(path, config.pixels)
    _number_classes(config, sources["train"], sources["val"])
    splits = Splits(sources)
    if sources["train"].fingerprint() == sources["val"].fingerprint():
        splits.notes.append(
            f"the validation images are the training images ({config.train_file} and {config.val_file} hold the same "
            "labels and sizes), so no figure of this set is about unseen images"
        )
    return splits


def _number_classes(config: HDF5Data, train: HDF5Source, val: HDF5Source) -> None:
    """Name the classes 0 to the training set's largest label. Raises ConfigError for a label above that."""
    assert config.path is not None
    images = train.labels.numel()
    if not images:
        return
    most_classes = max(images, _MOST_CLASSES)
    for source, file, most, why in (
        (train, config.train_file, most_classes - 1, f"there are only {images:,} training images"),
        (val, config.val_file, int(train.labels.max()), f"{config.train_file} has no label above that"),
    ):
        beyond = (source.labels > most).nonzero().flatten()
        if beyond.numel():
            key, label = int(beyond[0]), int(source.labels[beyond[0]])
            raise ConfigError(
                f"{config.path / file}:labels/{key} is {label}, and a label must be at most {most}, because {why}; "
                f"{beyond.numel():,} such label{'s' * (beyond.numel() > 1)}. Number the classes from 0"
            )
        source.class_names = [str(label) for label in range(int(train.labels.max()) + 1)]


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Give the open file. Every error that HDF5 raises while the file is read becomes a ConfigError that names the
    file."""
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ConfigError(f"{path} cannot be opened as HDF5 ({_reason(error)})") from None
    with file:
        try:
            yield file
        except ConfigError:
            raise
        except Exception as error:  # h5py raises several kinds for damaged files
            raise ConfigError(f"{path} is damaged ({_reason(error)}); copy or write it again") from None


def _reason(error: Exception) -> str:
    """Return HDF5's message in one line, with a remedy if another program is writing the file."""
    text = str(error).splitlines()[0]
    if "unable to lock file" in text:
        return "another program has it open for writing; close it there, or wait until it is written"
    if "already open for write" in text:
        return (
            "a program is writing it, or ended before it closed it; when no program writes and the file is whole, "
            "`h5clear -s FILE` makes it readable"
        )
    return text


def _count(file: Any, path: Path) -> int:
    missing = {"images", "labels"} - set(file)
    if missing:
        raise ConfigError(
            f"{path} lacks the group(s) {', '.join(sorted(missing))}; it must hold {_LAYOUT}. It holds "
            f"{', '.join(sorted(file)[:5]) or 'nothing'}"
        )
    for name in ("images", "labels"):
        if not isinstance(file[name], h5py.Group):
            raise ConfigError(
                f"{path}: {name} is one array of shape {file[name].shape}; the file must hold {_LAYOUT}, each image as "
                f"the bytes of a {FORMATS} file"
            )
    images, labels = len(file["images"]), len(file["labels"])
    if images != labels:
        raise ConfigError(f"{path} holds {images:,} images and {labels:,} labels; every image needs one label")
    return images


def _entry(file: Any, path: Path, group: str, index: int) -> Any:
    """Return the data set with this number. Raises ConfigError if there is none."""
    try:
        found = file[group][str(index)]
    except (KeyError, OSError, RuntimeError) as error:
        raise ConfigError(f"{path} lacks a key between 0 and N-1 in {group} ({_reason(error)})") from None
    if not isinstance(found, h5py.Dataset):
        raise ConfigError(f"{path}:{group}/{index} is a group and must be a data set; the file must hold {_LAYOUT}")
    return found


def _label(dataset: Any, path: Path) -> int:
    """Return a label: one whole number, at least 0. Raises ConfigError for anything else."""
    what = None
    if dataset.dtype.kind not in "iubf":
        what = "text" if h5py.check_string_dtype(dataset.dtype) else f"of type {dataset.dtype}"
    elif dataset.size != 1:
        what = f"{dataset.size} numbers (a one-hot vector must become the place of its 1)"
    else:
        value = np.asarray(dataset).reshape(-1)[0]
        if dataset.dtype.kind == "f" and not (math.isfinite(value) and value == int(value)):
            what = f"{value}"
        elif int(value) < 0:
            what = f"{int(value)} (there are no negative labels)"
        elif int(value) >= 2**31:
            what = f"{int(value)}"
    if what is not None:
        raise ConfigError(
            f"{path}:{dataset.name.lstrip('/')} is {what}; every label must be one whole number, from 0 to classes - 1"
        )
    return int(value)


def _size(dataset: Any, path: Path) -> int:
    """Return the size of an encoded image in bytes. Raises ConfigError for a data set that does not hold bytes."""
    kind, variable = dataset.dtype.kind, h5py.check_vlen_dtype(dataset.dtype)
    if kind in "iu" and dataset.dtype.itemsize == 1 and dataset.ndim == 1:
        return int(dataset.nbytes)
    if kind in "SV" and not dataset.dtype.fields and not dataset.dtype.subdtype and dataset.size == 1:
        return int(dataset.nbytes)
    if variable is not None and np.dtype(variable).itemsize == 1 and dataset.size == 1:
        return int(np.asarray(dataset).reshape(-1)[0].nbytes)
    raise ConfigError(
        f"{path}:{dataset.name.lstrip('/')} is of type {dataset.dtype} and shape {dataset.shape}; every image must be "
        f"the bytes of a {FORMATS} file (uint8, one axis), not its pixels"
    )
