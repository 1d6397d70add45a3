"""The authors' HDF5 layout: groups `images` and `labels`, keys "0".."N-1", encoded image bytes."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from cnnjepa.data.decoding import decode
from cnnjepa.data.readers import cannot_read
from cnnjepa.schemas import ConfigError, HDF5Data


class HDF5Source:
    """One file. Every process opens its own handle, because HDF5 handles do not survive a fork."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: tuple[int, Any] | None = None
        try:
            with h5py.File(path, "r") as file:
                missing = {"images", "labels"} - set(file)
                if missing:
                    raise ConfigError(
                        f"{path} lacks the group(s) {', '.join(sorted(missing))}; legal are images and labels"
                    )
                count = len(file["images"])
                labels = [int(np.asarray(file["labels"][str(i)]).reshape(-1)[0]) for i in range(count)]
                self._sizes = [int(file["images"][str(i)].nbytes) for i in range(count)]
        except KeyError as error:
            raise ConfigError(f"{path} lacks a key between 0 and N-1 ({error})") from None
        except OSError as error:
            raise ConfigError(f"{path} cannot be opened as HDF5 ({error})") from None
        self.labels: Tensor = torch.tensor(labels, dtype=torch.int64)
        if count and int(self.labels.min()) < 0:
            raise ConfigError(f"{path} holds negative labels; legal are 0 to classes - 1")
        self.class_names: Sequence[str] = [str(i) for i in range(int(self.labels.max()) + 1)] if count else []

    def _file(self) -> Any:
        if self._handle is None or self._handle[0] != os.getpid():
            self._handle = (os.getpid(), h5py.File(self._path, "r"))
        return self._handle[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}

    def load(self, index: int) -> Tensor:
        return decode(self.read(index), self.name(index))

    def read(self, index: int) -> bytes:
        """The encoded image. Raises ImageError naming it when it cannot be read."""
        try:
            return np.asarray(self._file()["images"][str(index)]).tobytes()
        except OSError as error:
            raise cannot_read(self.name(index), error) from None

    def name(self, index: int) -> str:
        return f"{self._path}:images/{index}"

    def fingerprint(self) -> str:
        """Over labels and encoded sizes."""
        return hashlib.sha256(repr((self.labels.tolist(), self._sizes)).encode()).hexdigest()


def open_hdf5(config: HDF5Data) -> dict[str, HDF5Source]:
    """The sources of both splits. Raises ConfigError for missing files or groups."""
    if config.path is None:
        raise ConfigError("data.path is not set; give the folder of the two HDF5 files with --data PATH")
    sources = {}
    for split, name in (("train", config.train_file), ("val", config.val_file)):
        path = config.path / name
        if not path.is_file():
            there = sorted(p.name for p in config.path.glob("*.h5")) if config.path.is_dir() else []
            raise ConfigError(
                f"data.{split}_file {path} does not exist; "
                f"{'the folder holds ' + ', '.join(there) if there else 'the folder holds no .h5 file'}"
            )
        sources[split] = HDF5Source(path)
    return sources
