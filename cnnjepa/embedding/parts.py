"""Finished parts of a file of features, in a folder next to it. A process that was killed continues after its last
part, and several processes write different parts."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from cnnjepa.errors import RunError
from cnnjepa.schemas import ConfigError
from cnnjepa.storage.atomic_files import put_in_place, write_atomically

# Memory of a part. Assumption.
_BYTES = 64 * 2**20


class Part(NamedTuple):
    """Rows of the file that belong together."""

    places: Tensor
    """int64 [n], ascending indices of the images in the list. Unreadable images are left out."""
    values: np.ndarray[Any, Any]
    """[n, C] or [n, C, h, w] of the file's type."""


class Parts:
    """The folder of parts. Every part has the same number of batches, so that batches do not depend on the number of
    processes or on where an earlier one was killed."""

    def __init__(self, out: Path, images: int, batch_size: int, bytes_per_image: int, most: int) -> None:
        """`most` is the largest number of images of a part."""
        batches = min(_BYTES // (batch_size * bytes_per_image), most // batch_size)
        self.out, self.images, self.batch_size = out, images, batch_size
        self.rows = batch_size * max(batches, 1)
        """Images of a part; the last one may have fewer."""
        self.folder = out.with_name(f"{out.name}.parts")
        self.count = -(-images // self.rows)

    def begin(self, facts: dict[str, Any]) -> None:
        """Make the folder, or continue in it. Raises ConfigError if it belongs to other settings."""
        path, text = self.folder / "settings.json", json.dumps(facts, indent=1, sort_keys=True)
        try:
            self.folder.mkdir(exist_ok=True)
            if not path.exists():
                write_atomically(path, text.encode())
        except OSError as error:
            raise RunError(f"cannot write into {self.folder} ({error.strerror})") from None
        found = json.loads(path.read_text(encoding="utf-8"))
        if found != json.loads(text):
            differing = [name for name in facts if found.get(name) != json.loads(text)[name]]
            raise ConfigError(
                f"{self.folder} holds unfinished features of other settings ({', '.join(differing) or 'version'}); "
                "delete it, or give another --out"
            )

    def indices(self, number: int) -> Tensor:
        """Return the indices of a part's images in the list, int64."""
        return torch.arange(number * self.rows, min((number + 1) * self.rows, self.images))

    def missing(self, rank: int = 0, processes: int = 1) -> list[int]:
        """Return the numbers of the unfinished parts in the contiguous share of a process."""
        first, last = (self.count * place // processes for place in (rank, rank + 1))
        return [number for number in range(first, last) if not self._path(number).exists()]

    def finished_images(self, rank: int = 0, processes: int = 1) -> tuple[int, int]:
        """Return the number of finished images in the share of a process, and that of all its images."""
        first, last = (self.count * place // processes for place in (rank, rank + 1))
        total = min(last * self.rows, self.images) - min(first * self.rows, self.images)
        return total - sum(self.indices(number).numel() for number in self.missing(rank, processes)), total

    def write(self, number: int, part: Part) -> None:
        """Write a part, whole or not at all. Raises RunError if that fails."""
        buffer = io.BytesIO()
        np.savez(buffer, places=part.places.numpy(), values=part.values)
        write_atomically(self._path(number), buffer.getvalue())

    def rows_written(self) -> int:
        """Return the number of rows of all parts."""
        return sum(len(self._member(number, "places")) for number in range(self.count))

    def read(self) -> Iterator[Part]:
        """Yield the parts in order."""
        for number in range(self.count):
            yield Part(torch.from_numpy(self._member(number, "places")), self._member(number, "values"))

    def _member(self, number: int, name: str) -> np.ndarray[Any, Any]:
        path = self._path(number)
        try:
            with np.load(path) as loaded:
                return np.asarray(loaded[name])
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise RunError(f"{path} is damaged ({type(error).__name__}); delete it and run the command again") from None

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}.npz"

    def aside(self, suffix: str) -> Path:
        """Return the path under which the joined file is written before it gets its name."""
        return self.folder / f"joined{suffix}"

    def publish(self, suffixes: tuple[str, ...]) -> None:
        """Give the joined files, synced to the disk, their names next to the folder; the last one gets that of the
        file. Raises RunError if that fails."""
        for suffix in suffixes:
            place = self.out if suffix == suffixes[-1] else self.out.with_suffix(suffix)
            try:
                put_in_place(self.aside(suffix), place)
            except OSError as error:
                raise RunError(f"cannot write {place} ({error.strerror})") from None
