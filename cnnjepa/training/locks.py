"""One process at a time in a folder, whatever machines see it."""

import contextlib
import fcntl
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from cnnjepa.errors import InUseError, RunError

WHERE_LOCKS_WORK = "use a local disk, NFS (not mounted with nolock or local_lock), or Lustre mounted with flock"

# Mount options that keep locks on the client: other machines do not see them. Source: nfs(5), mount.lustre(8).
_LOCAL_ONLY = {
    "nfs": {"nolock", "local_lock=all", "local_lock=flock"},
    "nfs4": {"nolock", "local_lock=all", "local_lock=flock"},
    "lustre": {"localflock"},
    "cifs": {"nobrl"},
    "smb3": {"nobrl"},
}


@contextlib.contextmanager
def locked(folder: Path, patience: float = 1.0) -> Iterator[None]:
    """Holds the folder, which is made if need be. Raises InUseError when another process still does after `patience`
    seconds.

    The lock goes with its process, however that ends; it works between machines on NFS (where it is a byte-range
    lock of the server). A file system that has no such lock, or only a pretended one, is refused.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        refuse_unsafe_locks(folder)
        lock = open(folder / ".lock", "a+")  # noqa: SIM115 - held open while entered
    except OSError as error:
        raise RunError(f"cannot write into {folder} ({error.strerror})") from None
    with lock:
        give_up = time.monotonic() + patience
        while not _took(lock, fcntl.LOCK_EX):
            if time.monotonic() >= give_up:
                raise InUseError(
                    f"{folder} is in use by another process{_by(lock)}; wait for it, or give another folder"
                )
            time.sleep(0.05)
        lock.truncate(0)
        lock.write(f"{platform.node()} process {os.getpid()}")
        lock.flush()
        yield


def holder(folder: Path) -> str | None:
    """Who holds the folder at the moment; None when nobody does. Whoever begins meanwhile waits a moment."""
    try:
        lock = open(folder / ".lock")  # noqa: SIM115 - closed below
    except OSError:
        return None
    with lock:
        return None if _took(lock, fcntl.LOCK_SH) else lock.read() or "another process"


def _took(lock: IO[str], kind: int) -> bool:
    """Whether the lock could be had at once."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise RunError(f"{lock.name} cannot be locked ({error.strerror}); {WHERE_LOCKS_WORK}") from None
    return True


def _by(lock: IO[str]) -> str:
    lock.seek(0)
    who = lock.read().strip()
    return f" ({who})" if who else ""


def refuse_unsafe_locks(path: Path, mounts: str | None = None) -> None:
    """Raises RunError when locks below `path` are not seen by other machines. `mounts` is the text of
    /proc/self/mountinfo; read from there by default, and nothing is refused where there is none (not Linux)."""
    if mounts is None:
        try:
            mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
        except OSError:
            return
    found = _mount_of(path.resolve(), mounts)
    if found is None:
        return
    kind, options = found
    bad = sorted(_LOCAL_ONLY.get(kind, set()) & options)
    if bad:
        raise RunError(
            f"{path} lies on {kind} mounted with {bad[0]}, where a lock of one machine is not seen by another; "
            f"{WHERE_LOCKS_WORK}"
        )


def _mount_of(path: Path, mounts: str) -> tuple[str, set[str]] | None:
    """(file system, options) of the innermost mount that holds `path`. Format: proc(5), mountinfo."""
    best: tuple[int, str, set[str]] | None = None
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields, tail = before.split(), after.split()
        if len(fields) < 6 or len(tail) < 3:
            continue
        point = Path(fields[4].encode().decode("unicode_escape"))  # spaces are written \040
        if path.is_relative_to(point) and (best is None or len(point.parts) >= best[0]):
            best = (len(point.parts), tail[0], {*fields[5].split(","), *tail[2].split(",")})
    return None if best is None else best[1:]
