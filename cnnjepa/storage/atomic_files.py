"""Atomic writes: a reader, also after a crash at any moment, finds the old file or the new one, never a part."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from cnnjepa.errors import RunError


class AtomicFile:
    """File that is written piece by piece under a temporary name. When the block ends without an error, it is synced,
    renamed to `path`, and the folder is synced; after an error it is deleted and the old file is unchanged.

    Raises RunError if writing to the disk fails.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._aside = path, path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")

    def __enter__(self) -> "AtomicFile":
        with self._refusals():
            self._file = open(self._aside, "wb")
        return self

    def write(self, content: bytes) -> None:
        """Append to the file. Raises RunError if that fails."""
        with self._refusals():
            self._file.write(content)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with self._refusals():
                    self._file.flush()
                    put_in_place(self._aside, self._path)
        finally:
            with contextlib.suppress(OSError):  # closing writes the rest of the buffer: a full disk fails once more
                self._file.close()
            with contextlib.suppress(OSError):
                self._aside.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            kept = "; the earlier file is unchanged" if self._path.exists() else ""
            raise RunError(f"cannot write {self._path} ({error.strerror or error}){kept}") from None


def write_atomically(path: Path, content: bytes) -> None:
    """Write a whole file; see AtomicFile. Raises RunError if writing to the disk fails."""
    with AtomicFile(path) as file:
        file.write(content)


def keep_as(path: Path, name: str) -> None:
    """Give the file at `path` a second name in the same folder, atomically (a hard link, or a copy if links are not
    supported)."""
    aside, wanted = path.with_name(f"{name}.{secrets.token_hex(4)}.tmp"), path.with_name(name)
    if wanted.exists() and wanted.samefile(path):
        return  # renaming between two names of one file is a no-op that would leave both
    try:
        aside.unlink(missing_ok=True)
        try:
            os.link(path, aside)
        except OSError:
            shutil.copyfile(path, aside)
        put_in_place(aside, wanted)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise RunError(f"cannot write {wanted} ({error.strerror or error})") from None


def put_in_place(aside: Path, path: Path) -> None:
    """Give a finished file its name, atomically and durably: it is synced, renamed, and the folder is synced. Raises
    OSError."""
    with open(aside, "rb") as file:
        os.fsync(file.fileno())
    os.replace(aside, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
