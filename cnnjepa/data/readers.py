"""Where encoded images lie, and how their bytes are read: a directory, or a tar archive of one."""

import errno
import os
import resource
import tarfile
from pathlib import Path
from typing import NamedTuple, Protocol

from cnnjepa.errors import ImageError, RunError
from cnnjepa.schemas import ConfigError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif")

# A compressed archive cannot be read at random, so it is kept unpacked in memory up to this size.
_MOST_COMPRESSED_BYTES = 8 * 2**30


class Entry(NamedTuple):
    """An image file: path below the root (`<split>/<class>/<image>`), bytes, and where a reader finds it."""

    path: str
    size: int
    offset: int = 0
    shard: int = 0


class Reader(Protocol):
    """Finds image files and reads them; safe to use after a fork."""

    def entries(self) -> list[Entry]: ...

    def read(self, entry: Entry) -> bytes: ...


def cannot_read(name: str, error: OSError) -> RunError:
    """The error for an image whose bytes cannot be read; a lack of file descriptors or memory is not the image's."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return RunError(
            f"{name} cannot be read: too many open files (this shell allows {limit}); raise the limit with "
            "`ulimit -n 65536`, or lower runtime.workers or --threads"
        )
    if error.errno == errno.ENOMEM:
        return RunError(f"{name} cannot be read: the machine is out of memory; lower runtime.workers or --threads")
    return ImageError(f"{name} cannot be read ({error.strerror or error})")


class Directory:
    """Files below a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def entries(self) -> list[Entry]:
        found = []
        for folder, _, files in os.walk(self._root, followlinks=True):
            inside = os.path.relpath(folder, self._root).replace(os.sep, "/")
            found += [
                Entry(f"{inside}/{file}", os.stat(os.path.join(folder, file)).st_size)
                for file in files
                if file.lower().endswith(EXTENSIONS)
            ]
        return found

    def read(self, entry: Entry) -> bytes:
        return (self._root / entry.path).read_bytes()


class Tar:
    """An archive, plain (read at random from the file) or compressed (unpacked into memory)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._memory: bytearray | None = None
        self._entries: list[Entry] = []
        self._file: tuple[int, int] | None = None  # (process, descriptor): a fork opens its own
        try:
            self._index()
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            raise ConfigError(f"archive {path} cannot be read ({error})") from None

    def _index(self) -> None:
        compressed = self._path.suffix != ".tar"
        with tarfile.open(self._path, "r|*" if compressed else "r:") as archive:
            for member in archive:
                if not member.isfile() or not member.name.lower().endswith(EXTENSIONS):
                    continue
                offset = member.offset_data
                if compressed:
                    offset = self._keep(archive, member)
                self._entries.append(Entry(member.name.removeprefix("./"), member.size, offset))
            if not compressed:
                self._refuse_cut_off(archive.offset)

    def _refuse_cut_off(self, end: int) -> None:
        """tarfile takes an archive cut at a member's edge for a shorter one; a whole one ends in an empty block."""
        with open(self._path, "rb") as file:
            file.seek(end)
            if len(file.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
                raise ValueError("it ends before its end mark; the copy is not whole")

    def _keep(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> int:
        self._memory = bytearray() if self._memory is None else self._memory
        offset = len(self._memory)
        if offset + member.size > _MOST_COMPRESSED_BYTES:
            raise ValueError(
                f"more than {_MOST_COMPRESSED_BYTES / 2**30:g} GiB of images in a compressed archive; "
                "unpack it into a .tar or a directory, which are read in place"
            )
        stream = archive.extractfile(member)
        assert stream is not None
        self._memory += stream.read()
        return offset

    def entries(self) -> list[Entry]:
        return self._entries

    def read(self, entry: Entry) -> bytes:
        if self._memory is not None:
            return bytes(memoryview(self._memory)[entry.offset : entry.offset + entry.size])
        if self._file is None or self._file[0] != os.getpid():
            self._file = (os.getpid(), os.open(self._path, os.O_RDONLY))
        return os.pread(self._file[1], entry.size, entry.offset)
