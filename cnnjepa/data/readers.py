"""Readers of encoded images: their interface, and the reader of a directory. `archive.py` reads tar archives and
`shards.py` packed sets."""

import errno
import os
import resource
import stat
from pathlib import Path
from typing import Protocol

from cnnjepa.data.entries import Entry
from cnnjepa.data.scan import Reason, Scan, Scanning
from cnnjepa.errors import ImageError, RunError


class Reader(Protocol):
    """Finds image files and reads them. Safe to use after a fork."""

    def scan(self) -> Scan: ...

    def read(self, entry: Entry) -> bytes: ...


def cannot_read(name: str, error: OSError) -> RunError:
    """Return the error for an image whose bytes cannot be read. A lack of file descriptors or memory is not blamed on
    the image."""
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
    """Files below a folder. Links are followed."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def scan(self) -> Scan:
        """Find the images. Raises OSError if the root itself cannot be opened."""
        scanning = Scanning()
        # Folders still to be read: path below the root, and (device, inode) of the folder itself and of every folder
        # above it.
        top = os.stat(self._root)
        stack: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ((top.st_dev, top.st_ino),))]
        while stack:
            folder, above = stack.pop()
            try:
                with os.scandir(self._root / folder) as found:
                    items = sorted(found, key=lambda item: item.name)
            except OSError as error:
                if not folder:
                    raise
                scanning.closed_folder(folder, error.strerror or str(error))
                continue
            inside = []
            for item in items:
                path = f"{folder}/{item.name}" if folder else item.name
                inner = self._look(item, path, above, scanning)
                if inner is not None:
                    inside.append((path, inner))
            stack += reversed(inside)
        return scanning.done()

    def _look(
        self, item: os.DirEntry[str], path: str, above: tuple[tuple[int, int], ...], scanning: Scanning
    ) -> tuple[tuple[int, int], ...] | None:
        """Handle one name in a folder. If it is a folder to be read, return it and the folders above it; otherwise
        return None."""
        try:
            facts = item.stat()
        except OSError as error:
            if not scanning.passes_over(path, folder=False):
                scanning.broken_link(path, error.strerror or str(error))
            return None
        is_folder = stat.S_ISDIR(facts.st_mode)
        if scanning.passes_over(path, is_folder):
            return None
        if is_folder:
            here = (facts.st_dev, facts.st_ino)
            if item.is_symlink() and here in above:
                scanning.left_out.add(Reason.LOOP, f"{path}/")
                return None
            if not scanning.reads_again(path, here):
                return None
            scanning.folders.add(path)
            return (*above, here)
        if stat.S_ISREG(facts.st_mode):
            scanning.file(path, facts.st_size)
        else:
            scanning.left_out.add(Reason.SPECIAL, path)
        return None

    def read(self, entry: Entry) -> bytes:
        return (self._root / entry.path).read_bytes()
