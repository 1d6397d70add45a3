"""Atomic writes: a reader, also after a crash at any moment, finds the old file or the new one, never a part."""

import os
import secrets
import shutil
from pathlib import Path

from cnnjepa.errors import RunError


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary file, sync, rename, and sync the folder. Raises RunError if writing to the disk fails; the
    old file is then unchanged."""
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(aside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        sync_folder(path.parent)
    except OSError as error:
        aside.unlink(missing_ok=True)
        kept = f"; the file of before is untouched: {path}" if path.exists() else ""
        raise RunError(f"cannot write {path} ({error.strerror or error}){kept}") from None


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
        os.replace(aside, wanted)
        sync_folder(path.parent)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise RunError(f"cannot write {wanted} ({error.strerror or error})") from None


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
