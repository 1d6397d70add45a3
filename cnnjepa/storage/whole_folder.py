"""Writing of a folder that appears as a whole or not at all."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from cnnjepa.errors import RunError


@contextlib.contextmanager
def whole_folder(folder: Path, last: str) -> Iterator[Path]:
    """Give a temporary folder to write files into. When the block ends without an error, it becomes `folder`. If
    `folder` already exists, its files are replaced one by one, the file named `last` at the end, and other files stay.
    After an error everything is unchanged. Raises RunError if the folder cannot be written."""
    near = next(path for path in folder.absolute().parents if path.is_dir())  # the same file system, so renames work
    aside = near / f".export.{secrets.token_hex(4)}.tmp"
    try:
        aside.mkdir()
    except OSError as error:
        raise RunError(f"cannot write into {near} ({error.strerror})") from None
    try:
        yield aside
        if folder.exists():
            for file in sorted(aside.iterdir(), key=lambda path: path.name == last):
                os.replace(file, folder / file.name)
        else:
            folder.parent.mkdir(parents=True, exist_ok=True)
            os.replace(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
