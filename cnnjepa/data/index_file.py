"""The file in which the index of a large set is kept.

    8 bytes    MAGIC
    8 bytes    length of the JSON that follows, little endian
    8 bytes    its CRC-32, little endian
    JSON       facts, and type, length and position of every array
    arrays     each at a multiple of 64 bytes

A reader maps the file into memory, so that opening an index of 14 million images reads no array, and all processes of a
machine share its pages.
"""

import json
import mmap
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnjepa.storage.atomic_files import AtomicFile

MAGIC = b"cnnjepa3"

_HEAD = len(MAGIC) + 16
_ALIGNED = 64


class DamagedIndexError(ValueError):
    """A file is no index, or was written by another version."""


def write_index(path: Path, facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write facts (JSON) and one-dimensional arrays. Raises RunError if the disk refuses."""
    sizes = {name: [array.dtype.str, array.size] for name, array in arrays.items()}
    header = json.dumps({"facts": facts, "arrays": sizes}).encode()
    with AtomicFile(path) as file:
        file.write(MAGIC + len(header).to_bytes(8, "little") + zlib.crc32(header).to_bytes(8, "little") + header)
        end = _HEAD + len(header)
        for array in arrays.values():
            content = np.ascontiguousarray(array)
            start = _aligned(end)
            file.write(bytes(start - end))
            for part in _parts(content):
                file.write(part)
            end = start + content.nbytes


def read_index(path: Path) -> tuple[Any, dict[str, NDArray[Any]]]:
    """Return the facts and the arrays of a file. Writing to an array changes no file. Raises OSError, and
    DamagedIndexError for a file that is not whole."""
    with open(path, "rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise DamagedIndexError(f"{path} is no index of this version")
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    length, checksum = (int.from_bytes(memory[place : place + 8], "little") for place in (len(MAGIC), len(MAGIC) + 8))
    content = memory[_HEAD : _HEAD + length]
    if zlib.crc32(content) != checksum:
        raise DamagedIndexError(f"{path} is damaged")
    header = json.loads(content)
    arrays: dict[str, NDArray[Any]] = {}
    end = _HEAD + length
    for name, (kind, size) in header["arrays"].items():
        start = _aligned(end)
        end = start + np.dtype(kind).itemsize * size
        if end > len(memory):
            raise DamagedIndexError(f"{path} is cut off")
        arrays[name] = np.frombuffer(memory, kind, size, start)
    return header["facts"], arrays


def _aligned(place: int) -> int:
    return -(-place // _ALIGNED) * _ALIGNED


def _parts(array: NDArray[Any], size: int = 2**26) -> Iterator[bytes]:
    """Yield the bytes of an array, some at a time."""
    content = array.view(np.uint8) if array.size else array
    for start in range(0, content.size, size):
        yield content[start : start + size].tobytes()
