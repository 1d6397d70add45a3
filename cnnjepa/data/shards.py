"""A packed set on disk, as `cnnjepa data pack` writes it and the folder source reads it.

    pack.json           what was packed and how; `finished` once every image has been read back
    shard-00000.tar     images as <split>/<class>/<file>; any tar program reads them
    shard-00000.json    position of each image, and the shard's size and SHA-256

A shard's index is written after the complete shard is on disk. A shard without an index does not count.
"""

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from cnnjepa.commands import command
from cnnjepa.data.entries import Entry
from cnnjepa.data.scan import Reason, Scan, Scanning
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.pixels import Depth, PixelKind

MANIFEST = "pack.json"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Manifest(_Record):
    """Content of `pack.json`."""

    format: Literal[1] = 1
    source_fingerprint: str
    """Fingerprint of both splits of the set that was packed."""
    shorter_side: int
    """In pixels; larger images were shrunk to it."""
    quality: int
    """JPEG quality, 1 to 100."""
    train: int
    """Training images in the source."""
    val: int
    """Validation images in the source."""
    channels: int = 3
    dtype: Depth = "uint8"
    """Form of the images: 8-bit RGB is shrunk to JPEG, everything else to NumPy files of the same depth."""
    images_per_shard: int
    made_with: str
    """The encoder and its version."""
    finished: bool = False

    @property
    def pixels(self) -> PixelKind:
        """The form in which images are read and stored."""
        return PixelKind(self.channels, self.dtype)

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-(self.train + self.val) // self.images_per_shard)


class ShardIndex(_Record):
    """Content of `shard-N.json`."""

    images: list[tuple[str, int, int]]
    """Path, first byte in the shard, and size in bytes, for every image."""
    size: int
    """Size of the shard in bytes."""
    sha256: str
    """Digest of the shard."""
    copied: int
    """Number of images that were small enough to be copied byte for byte."""
    skipped: list[tuple[str, str]]
    """Unreadable images left out: the path they would have had, and the reason."""
    repaired: list[str] = []
    """Damaged images that were repaired while reading, by name and reason. A resized one is stored as repaired."""


def shard_file(root: Path, number: int) -> Path:
    """Return the path of shard `number`."""
    return root / f"shard-{number:05d}.tar"


def read_manifest(root: Path) -> Manifest | None:
    """Read the `pack.json` of a folder; None if there is none. Raises ConfigError if the file was not written by this
    program."""
    try:
        return Manifest.model_validate_json((root / MANIFEST).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{root / MANIFEST} is not what `cnnjepa data pack` writes ({reason})") from None


def finished(root: Path) -> bool:
    """Return whether a folder holds a packed set that is complete and was verified."""
    manifest = read_manifest(root)
    return manifest is not None and manifest.finished


def read_index(root: Path, number: int) -> ShardIndex | None:
    """Read the index of a complete shard; None if the shard is missing, cut off, or was never completed."""
    shard = shard_file(root, number)
    try:
        index = ShardIndex.model_validate_json(shard.with_suffix(".json").read_bytes())
        return index if shard.stat().st_size == index.size else None
    except (OSError, ValidationError):
        return None


class Shards:
    """Reads a packed set. A forked process reads through the files that are already open; reads do not use a file
    position."""

    def __init__(self, root: Path, finished: bool = True) -> None:
        """Open the set. Raises ConfigError if it must be `finished` and is not."""
        manifest = read_manifest(root)
        assert manifest is not None
        self._again = f"run `{command('cnnjepa', 'data', 'pack', 'SOURCE', root)}` again, which goes on where it is"
        if finished and not manifest.finished:
            raise ConfigError(f"data.path {root} is not packed to its end; {self._again}")
        self._root, self._shards = root, manifest.shards
        self._files: dict[int, int] = {}  # shard → descriptor

    def scan(self) -> Scan:
        """Find the images. Raises ConfigError if a shard is missing or cut off."""
        scanning = Scanning()
        for number in range(self._shards):
            index = read_index(self._root, number)
            if index is None:
                shard = shard_file(self._root, number).name
                raise ConfigError(f"data.path {self._root}: {shard} is missing or not whole; {self._again}")
            for path, offset, size in index.images:
                scanning.file(path, size, offset, number)
            for path, _ in index.skipped:
                scanning.left_out.add(Reason.PACKED, path)
        return scanning.done()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}

    def read(self, entry: Entry) -> bytes:
        if entry.shard not in self._files:
            self._files[entry.shard] = os.open(shard_file(self._root, entry.shard), os.O_RDONLY)
        return os.pread(self._files[entry.shard], entry.size, entry.offset)

    def __del__(self) -> None:
        for descriptor in getattr(self, "_files", {}).values():
            os.close(descriptor)
