"""Arrays that a newly started process reads from the memory of the process that started it.

A forked process sees them anyway. With the start methods `forkserver` and `spawn`, which Python 3.14 and macOS use, a
data set is pickled for every loader process: 1.28 million names are 80 MB, once per process.
"""

import mmap
import os
import tempfile
from collections.abc import Sequence
from multiprocessing import reduction
from multiprocessing.context import get_spawning_popen
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Arrays below this size are pickled, because a descriptor costs more. Assumption.
_LEAST_SHARED_BYTES = 2**20


def anonymous_file() -> int:
    """Return the descriptor of a new file without a name, in memory where the system can (not in `/dev/shm`, which
    containers limit to 64 MB)."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("cnnjepa")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class Shared:
    """Arrays in an anonymous file. Pickled for a new process, it is a descriptor; anywhere else, a copy."""

    def __init__(self, arrays: Sequence[NDArray[Any]]) -> None:
        self.arrays = list(arrays)
        self._descriptor: int | None = None

    def __getstate__(self) -> Any:
        if get_spawning_popen() is None or sum(array.nbytes for array in self.arrays) < _LEAST_SHARED_BYTES:
            return self.arrays
        if self._descriptor is None:
            self._descriptor = anonymous_file()
            with open(os.dup(self._descriptor), "wb") as file:
                for array in self.arrays:
                    file.write(np.ascontiguousarray(array).data)
        return reduction.DupFd(self._descriptor), [(array.dtype.str, array.size) for array in self.arrays]

    def __setstate__(self, state: Any) -> None:
        self._descriptor = None
        if isinstance(state, list):
            self.arrays = state
            return
        descriptor = state[0].detach()
        try:
            memory = mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)
        finally:
            os.close(descriptor)
        self.arrays, start = [], 0
        for kind, size in state[1]:
            self.arrays.append(np.frombuffer(memory, kind, size, start))
            start += self.arrays[-1].nbytes

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            os.close(self._descriptor)  # type: ignore[arg-type]
