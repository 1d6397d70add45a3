"""Folders whose paths are short enough for local sockets. Linux limits their addresses to 107 bytes (unix(7))."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

# The longest name that multiprocessing appends: `/pymp-xxxxxxxx/listener-xxxxxxxx`.
_MULTIPROCESSING = 33
_LONGEST = 107
_EVERYBODYS = ("/tmp", "/var/tmp", "/dev/shm")


def short_folder(candidates: Iterable[str | Path], room: int) -> Path | None:
    """Return the first of `candidates` that exists, can be written, and leaves `room` bytes for a socket's name; None
    if there is none."""
    for candidate in candidates:
        path = Path(candidate).absolute()
        if len(os.fsencode(path)) + room <= _LONGEST and path.is_dir() and os.access(path, os.W_OK | os.X_OK):
            return path
    return None


def shorten_temporary_paths() -> None:
    """Move this process's temporary files to another folder if TMPDIR is too long for the sockets through which loader
    processes pass on their batches. Nothing changes if TMPDIR is short, or if there is no shorter folder."""
    current = tempfile.gettempdir()
    found = short_folder((current, *_EVERYBODYS), _MULTIPROCESSING)
    if found is not None and found != Path(current).absolute():
        tempfile.tempdir = str(found)
