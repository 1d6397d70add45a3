"""The image files of a data set, stored in arrays. A list of 1.28 million Python objects costs every loader process 216
MB, because reading an object writes its reference count and so copies its memory page."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnnjepa.data.shared_arrays import Shared


class Entry(NamedTuple):
    """An image file: path below the root (`<split>/<class>/<image>`), size in bytes, and where a reader finds it."""

    path: str
    size: int
    offset: int = 0
    shard: int = 0


class Entries:
    """Image files by index. Names that are not UTF-8 keep their bytes, as Python's surrogates. The arrays are shared
    with processes that are started later."""

    def __init__(
        self,
        paths: Sequence[str],
        sizes: ArrayLike,
        offsets: ArrayLike | None = None,
        shards: ArrayLike | None = None,
    ) -> None:
        encoded = [path.encode("utf-8", "surrogateescape") for path in paths]
        zeros = np.zeros(len(encoded), np.int64)
        self._hold(
            np.frombuffer(b"".join(encoded), np.uint8),
            np.cumsum([0, *map(len, encoded)], dtype=np.int64),
            np.asarray(sizes, np.int64),
            zeros if offsets is None else np.asarray(offsets, np.int64),
            zeros if shards is None else np.asarray(shards, np.int64),
        )

    @classmethod
    def of_arrays(cls, arrays: Sequence[NDArray[Any]]) -> "Entries":
        """Return the entries whose `arrays` are given."""
        entries = cls.__new__(cls)
        entries._hold(*arrays)
        return entries

    def _hold(self, *arrays: NDArray[Any]) -> None:
        self._shared = Shared(arrays)
        self._text, self._ends, self._sizes, self._offsets, self._shards = arrays

    @property
    def arrays(self) -> list[NDArray[Any]]:
        """Text of all paths (UTF-8, uint8), its ends [N + 1], sizes, offsets and shards (int64 [N])."""
        return self._shared.arrays

    @property
    def shards(self) -> NDArray[np.int64]:
        """Shard of every entry, int64 [N]."""
        return self._shards

    def __getstate__(self) -> Shared:
        return self._shared

    def __setstate__(self, state: Shared) -> None:
        self._shared = state
        self._text, self._ends, self._sizes, self._offsets, self._shards = state.arrays

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, index: int) -> Entry:
        return Entry(self.path(index), int(self._sizes[index]), int(self._offsets[index]), int(self._shards[index]))

    def __iter__(self) -> Iterator[Entry]:
        return (self[index] for index in range(len(self)))

    def path(self, index: int) -> str:
        """Return the path below the root."""
        return self._text[self._ends[index] : self._ends[index + 1]].tobytes().decode("utf-8", "surrogateescape")

    def take(self, indices: Sequence[int]) -> "Entries":
        """Return the entries at `indices`, in that order."""
        few = np.asarray(indices, np.int64)
        paths = [self.path(index) for index in few]
        return Entries(paths, self._sizes[few], self._offsets[few], self._shards[few])
