"""Reader of tar archives: plain ones by random access to the file, compressed ones unpacked into shared memory."""

import bz2
import errno
import gzip
import lzma
import os
import posixpath
import tarfile
from collections.abc import Callable
from multiprocessing import reduction
from pathlib import Path
from typing import Any, NamedTuple

from cnnjepa.data.entries import Entry
from cnnjepa.data.scan import Reason, Scan, Scanning, is_annotation, is_image
from cnnjepa.data.shared_arrays import anonymous_file
from cnnjepa.data.tar_members import UNREADABLE, inside_of, members
from cnnjepa.schemas import ConfigError

# A compressed archive allows no random access, so it is kept unpacked in memory up to this size.
_MOST_COMPRESSED_BYTES = 8 * 2**30

# First bytes of a compressed file, and the function that opens it. tarfile's own streams end with the first part of a
# file that was joined of several.
_COMPRESSED: dict[bytes, Callable[[Path], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}

_MOST_LINKS = 40  # links followed for one file, the limit of Linux

_NOT_KEPT, _SPARSE = -2, -3


class _File(NamedTuple):
    offset: int
    """Position of the first byte, or the reason why there is none: `_NOT_KEPT` (not unpacked) or `_SPARSE`."""
    size: int


class _Link(NamedTuple):
    target: str


_Tree = dict[str, dict[str, "_File | _Link | Reason | None"]]
"""Content of each folder, by name: a file, a symbolic link, a folder (None), or the reason why an entry is not a
file."""


class Tar:
    """Reads an archive as if it were unpacked: links are followed, and of two members with the same name the later one
    counts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with open(path, "rb") as file:
            first = file.read(6)
        self._open = next((way for magic, way in _COMPRESSED.items() if first.startswith(magic)), None)
        self._memory = _Memory() if self._open else None
        self._file: tuple[int, int] | None = None  # (process, descriptor): a forked process opens its own

    @property
    def compressed(self) -> bool:
        """Return whether the archive is compressed, and so kept unpacked in memory."""
        return self._memory is not None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def scan(self) -> Scan:
        """Find the images. Raises ConfigError for a damaged archive, or for a compressed one of more than 8 GiB."""
        try:
            scanning, missing = self._walk(*self._read(frozenset()))
            if missing:  # links point to files without an image extension, which were not unpacked
                scanning, _ = self._walk(*self._read(frozenset(missing)))
        except UNREADABLE as error:
            raise ConfigError(f"archive {self._path} cannot be read ({error})") from None
        return scanning.done()

    def read(self, entry: Entry) -> bytes:
        """Return the bytes of a file."""
        if entry.offset < 0:
            raise FileNotFoundError(errno.ENOENT, "a link to a file that is not in the archive")
        if self._memory is not None:
            return self._memory.read(entry.offset, entry.size)
        if self._file is None or self._file[0] != os.getpid():
            self._file = (os.getpid(), os.open(self._path, os.O_RDONLY))
        return os.pread(self._file[1], entry.size, entry.offset)

    def _read(self, also: frozenset[str]) -> tuple[_Tree, list[str]]:
        """Return the archive's tree, and the members that later ones replaced. For a compressed archive, the images and
        the files in `also` are unpacked into memory."""
        tree: _Tree = {"": {}}
        replaced: list[str] = []
        if self._memory is not None:
            self._memory.clear()
        with (self._open or _plain)(self._path) as file:
            for archive, member in members(file, stream=self._open is not None):
                folder, name = posixpath.split(inside_of(member.name))
                if not name:
                    continue
                inside = _folder(tree, folder)
                if member.isdir():
                    _folder(tree, posixpath.join(folder, name))
                    continue
                found = self._found(archive, member, tree, also)
                if isinstance(inside.get(name), _File | _Link):
                    replaced.append(posixpath.join(folder, name))
                inside[name] = found
        return tree, replaced

    def _found(
        self, archive: tarfile.TarFile, member: tarfile.TarInfo, tree: _Tree, also: frozenset[str]
    ) -> "_File | _Link | Reason":
        if member.issym():
            return _Link(posixpath.join(posixpath.dirname(inside_of(member.name)), member.linkname))
        if member.islnk():  # a hard link points to an earlier member, in its present state
            folder, name = posixpath.split(inside_of(member.linkname))
            found = tree.get(folder, {}).get(name)
            return _Link(f"/{member.linkname}") if found is None else found
        if not member.isfile():
            return Reason.SPECIAL
        if self._memory is None:
            return _File(_SPARSE if member.issparse() else member.offset_data, member.size)
        path = inside_of(member.name)
        if not is_image(path) and not is_annotation(path) and path not in also:
            return _File(_NOT_KEPT, member.size)
        stream = archive.extractfile(member)
        assert stream is not None
        return _File(self._memory.append(stream.read(), member.size), member.size)

    def _walk(self, tree: _Tree, replaced: list[str]) -> tuple[Scanning, set[str]]:
        """Return the scan, and the files that are targets of links but were not unpacked."""
        scanning, missing = Scanning(), set[str]()
        for name in replaced:
            scanning.left_out.add(Reason.REPLACED, name)
        stack: list[tuple[str, str, tuple[str, ...]]] = [("", "", ())]  # (path in the tree, path shown, folders above)
        while stack:
            folder, shown, above = stack.pop()
            inside: list[tuple[str, str, tuple[str, ...]]] = []
            for name in sorted(tree[folder]):
                path = posixpath.join(shown, name)
                real = _resolve(tree, posixpath.join(folder, name))
                if scanning.passes_over(path, real in tree):
                    continue
                node = None if real is None else _node(tree, real)
                if real is None:
                    scanning.broken_link(path, "a link to a file that is not in the archive")
                elif real in tree:
                    if real in (*above, folder):
                        scanning.left_out.add(Reason.LOOP, f"{path}/")
                    elif scanning.reads_again(path, real):
                        scanning.folders.add(path)
                        inside.append((real, path, (*above, folder)))
                elif isinstance(node, Reason):
                    scanning.left_out.add(node, path)
                elif isinstance(node, _File) and is_image(path) and node.offset == _SPARSE:
                    scanning.left_out.add(Reason.SPARSE, path)
                elif isinstance(node, _File):
                    if (is_image(path) or is_annotation(path)) and node.offset == _NOT_KEPT:
                        missing.add(real)
                    scanning.file(path, node.size, node.offset)
            stack += reversed(inside)
        return scanning, missing


def _plain(path: Path) -> Any:
    return open(path, "rb")


def _folder(tree: _Tree, path: str) -> dict[str, "_File | _Link | Reason | None"]:
    """Return the content of a folder. The folder is created if it is missing."""
    if path not in tree:
        folder, name = posixpath.split(path)
        _folder(tree, folder)[name] = None
        tree[path] = {}
    return tree[path]


def _node(tree: _Tree, path: str) -> "_File | _Link | Reason | None":
    folder, name = posixpath.split(path)
    return tree.get(folder, {}).get(name)


def _resolve(tree: _Tree, path: str, followed: int = 0) -> str | None:
    """Return the path with all links resolved. Returns None if a link points to nothing, out of the archive, or
    in a circle."""
    done = ""
    parts = path.split("/")
    if path.startswith("/") or followed > _MOST_LINKS:
        return None
    for place, part in enumerate(parts):
        if part in ("", "."):
            continue
        if part == "..":
            if not done:
                return None
            done = posixpath.dirname(done)
            continue
        inside = tree.get(done)
        if inside is None or part not in inside:
            return None
        node = inside[part]
        if isinstance(node, _Link):
            if node.target.startswith("/"):
                return None
            return _resolve(tree, "/".join([node.target, *parts[place + 1 :]]), followed + 1)
        done = posixpath.join(done, part)
    return done


class _Memory:
    """Bytes in anonymous memory, which other processes read through a descriptor. They are copied neither by a fork nor
    by pickling for a newly started process."""

    def __init__(self) -> None:
        self._descriptor = anonymous_file()
        self._size = 0

    def clear(self) -> None:
        os.ftruncate(self._descriptor, 0)
        self._size = 0

    def append(self, content: bytes, announced: int) -> int:
        """Append bytes and return their position."""
        offset = self._size
        if offset + announced > _MOST_COMPRESSED_BYTES:
            raise ValueError(
                f"more than {_MOST_COMPRESSED_BYTES / 2**30:g} GiB of images in a compressed archive; "
                "unpack it into a .tar or a directory, which are read in place"
            )
        left = memoryview(content)
        while left:
            written = os.pwrite(self._descriptor, left, self._size)
            self._size, left = self._size + written, left[written:]
        return offset

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, offset)

    def __getstate__(self) -> tuple[Any, int]:
        return reduction.DupFd(self._descriptor), self._size

    def __setstate__(self, state: tuple[Any, int]) -> None:
        self._descriptor, self._size = state[0].detach(), state[1]

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)
