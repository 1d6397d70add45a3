"""Locks that allow one process at a time in a folder, across all machines that see it."""

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

_NAME = ".lock"

# Mount options that keep locks on the client, where other machines do not see them. Source: nfs(5), mount.lustre(8).
_LOCAL_ONLY = {
    "nfs": {"nolock", "local_lock=all", "local_lock=flock"},
    "nfs4": {"nolock", "local_lock=all", "local_lock=flock"},
    "lustre": {"localflock"},
    "cifs": {"nobrl"},
    "smb3": {"nobrl"},
}


# File systems whose locks stay on the machine that takes them, or are granted without being taken, whatever the mount
# options. Sources: BeeGFS's documentation (tuneUseGlobalFileLocks, off by default), sshfs(1), qemu's 9p server, the
# manuals of the object-store mounts.
_NEVER = {
    "beegfs", "9p", "vboxsf", "orangefs", "pvfs2", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.goofys",
    "fuse.rclone", "fuse.mountpoint-s3", "fuse.blobfuse", "fuse.blobfuse2", "fuse.vmhgfs-fuse",
}  # fmt: skip
ONE_MACHINE = "CNNJEPA_ONE_MACHINE"
"""Environment variable that users set to 1 if only a single machine uses the folder. Locks that other machines do not
see are then sufficient."""


@contextlib.contextmanager
def locked(folder: Path, patience: float = 1.0) -> Iterator[None]:
    """Hold the lock of the folder, which is created if it is missing. Raises InUseError if another process still holds
    it after `patience` seconds.

    The lock ends with its process, however that ends. It works between machines on NFS (where it is a byte-range lock
    of the server). A file system that has no such lock, or only pretends to have one, is refused. Files and folders
    that this call created and that remain empty are removed at the end, so that a refused run leaves nothing behind.
    """
    new: list[Path] = []
    give_up = time.monotonic() + patience
    try:
        while (lock := _tried(folder, give_up, new)) is None:
            time.sleep(0.05)
        with lock:
            lock.truncate(0)
            lock.write(f"{platform.node()} process {os.getpid()}")
            lock.flush()
            try:
                yield
            finally:
                if [path.name for path in folder.glob("*")] == [_NAME]:
                    # A process that waits for this file finds that it is gone, and creates another.
                    (folder / _NAME).unlink(missing_ok=True)
    finally:
        _remove_empty(new)  # after the file was closed, which NFS requires


def _tried(folder: Path, give_up: float, new: list[Path]) -> IO[str] | None:
    """Return the locked file, or None if the caller should try again. Created folders are added to `new`, innermost
    first. Raises InUseError after `give_up` (monotonic seconds)."""
    path = folder / _NAME
    try:
        new[:] = [path for path in (folder, *folder.parents) if path in new or not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        refuse_unsafe_locks(folder)
        lock = open(path, "a+")  # noqa: SIM115 - held open within the block
    except OSError as error:
        if isinstance(error, FileNotFoundError) and time.monotonic() < give_up:
            return None  # its last holder has just removed the unused folder
        raise RunError(f"cannot write into {folder} ({error.strerror})") from None
    try:
        if _took(lock, fcntl.LOCK_EX) and _is_at(lock, path):
            return lock
        if time.monotonic() >= give_up:
            raise InUseError(f"{folder} is in use by another process{_by(lock)}; wait for it, or give another folder")
    except BaseException:
        lock.close()
        raise
    lock.close()
    return None


def _is_at(lock: IO[str], path: Path) -> bool:
    """Return whether the open file is still the one at `path`. The previous holder may have removed it."""
    try:
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _remove_empty(folders: list[Path]) -> None:
    """Remove the folders, innermost first, up to the first that is not empty."""
    for folder in folders:
        try:
            folder.rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            return


def holder(folder: Path) -> str | None:
    """Return the present holder of the folder; None if there is none. A process that starts at the same moment waits
    briefly."""
    try:
        lock = open(folder / _NAME)  # noqa: SIM115 - closed below
    except OSError:
        return None
    with lock:
        return None if _took(lock, fcntl.LOCK_SH) else lock.read() or "another process"


def _took(lock: IO[str], kind: int) -> bool:
    """Return whether the lock was available at once."""
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
    """Raise RunError if other machines do not see locks below `path`, unless CNNJEPA_ONE_MACHINE says that there are no
    other machines. `mounts` is the text of /proc/self/mountinfo, which is read by default. Nothing is refused if that
    file does not exist (not Linux)."""
    if os.environ.get(ONE_MACHINE) == "1":
        return
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
    if bad or (kind in _NEVER and not _beegfs_has_global_locks(kind, options)):
        how = f"{kind} mounted with {bad[0]}" if bad else kind
        raise RunError(
            f"{path} lies on {how}, where other machines do not see a lock; {WHERE_LOCKS_WORK}. If no "
            f"other machine uses this folder, set {ONE_MACHINE}=1"
        )


def _beegfs_has_global_locks(kind: str, options: set[str]) -> bool:
    """Return whether the mount's client configuration enables tuneUseGlobalFileLocks."""
    file = next((option.removeprefix("cfgFile=") for option in options if option.startswith("cfgFile=")), None)
    if kind != "beegfs" or file is None:
        return False
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    pairs = [line.partition("=") for line in lines]
    return any((name.strip(), value.strip().lower()) == ("tuneUseGlobalFileLocks", "true") for name, _, value in pairs)


def _mount_of(path: Path, mounts: str) -> tuple[str, set[str]] | None:
    """Return (file system, options) of the innermost mount that contains `path`. Format: proc(5), mountinfo."""
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
