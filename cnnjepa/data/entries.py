"""The image files of a data set, stored in arrays. A list of 1.28 million Python objects costs every loader process 216
MB, because reading an object writes its reference count and so copies its memory page."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Entry(NamedTuple):
    """An image file: path below the root (`<split>/<class>/<image>`), size in bytes, and where a reader finds it."""

    path: str
    size: int
    offset: int = 0
    shard: int = 0


class Entries:
    """Image files by index. Names that are not UTF-8 keep their bytes, as Python's surrogates."""

    def __init__(
        self,
        paths: Sequence[str],
        sizes: Sequence[int],
        offsets: Sequence[int] | None = None,
        shards: Sequence[int] | None = None,
    ) -> None:
        encoded = [path.encode("utf-8", "surrogateescape") for path in paths]
        self._text = b"".join(encoded)
        self._ends: NDArray[np.int64] = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        zeros = np.zeros(len(encoded), np.int64)
        self._sizes = np.asarray(sizes, np.int64)
        self._offsets = zeros if offsets is None else np.asarray(offsets, np.int64)
        self._shards = zeros if shards is None else np.asarray(shards, np.int64)

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, index: int) -> Entry:
        return Entry(self.path(index), int(self._sizes[index]), int(self._offsets[index]), int(self._shards[index]))

    def __iter__(self) -> Iterator[Entry]:
        return (self[index] for index in range(len(self)))

    def path(self, index: int) -> str:
        """Return the path below the root."""
        return self._text[self._ends[index] : self._ends[index + 1]].decode("utf-8", "surrogateescape")

    def take(self, indices: Sequence[int]) -> "Entries":
        """Return the entries at `indices`, in that order."""
        few = np.asarray(indices, np.int64)
        paths = [self.path(index) for index in few]
        return Entries(paths, self._sizes[few], self._offsets[few], self._shards[few])  # type: ignore[arg-type]
