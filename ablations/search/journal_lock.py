"""Lock of a journal file, a symbolic link as Optuna makes it. The lock of a killed process is removed after a short
time."""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

from optuna.storages.journal import JournalFileSymlinkLock

# A lock is held for milliseconds, while a few lines are appended and synced. A lock that does not change for this many
# seconds and checks was left by a killed process. The checks are counted too, so that a live lock does not look old
# when a file server stalls for this long. Assumption; Optuna waits for 30 s.
_STALE_SECONDS, _STALE_LOOKS = 10.0, 15
_LONGEST_PAUSE = 0.5


class JournalLock(JournalFileSymlinkLock):
    """Lock that excludes every program that locks the journal as Optuna does. `journal` must be absolute: a relative
    link would be resolved from the link's own folder."""

    def __init__(self, journal: Path, warned: Callable[[str], None]) -> None:
        super().__init__(str(journal))
        self._journal, self._warned = journal, warned
        self.path = journal.with_name(f"{journal.name}.lock")
        self._own: tuple[int, int] | None = None

    def acquire(self) -> bool:
        """Wait until no process holds the lock. A stale lock is removed after 10 s with a warning."""
        seen, since, looks, pause = self._look(), time.monotonic(), 0, 0.001
        while True:
            try:
                os.symlink(self._journal, self.path)
                self._own = self._look()
                return True
            except FileExistsError:
                time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            now = self._look()
            if now != seen:
                seen, since, looks = now, time.monotonic(), 0
            looks += 1
            if looks >= _STALE_LOOKS and time.monotonic() - since >= _STALE_SECONDS:
                self._remove(seen)
                since, looks = time.monotonic(), 0

    def release(self) -> None:
        """Remove the lock, unless another process has removed it and holds its own lock."""
        if self._own is not None and self._look() == self._own:
            self.path.unlink(missing_ok=True)
        self._own = None

    def _look(self) -> tuple[int, int] | None:
        """Return (inode, time of creation) of the link itself; None if there is none."""
        try:
            found = os.lstat(self.path)
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns

    def _remove(self, seen: tuple[int, int] | None) -> None:
        """Remove the lock if it is still the one in `seen`. Only one process does this at a time."""
        with open(self._journal, "ab") as file:
            with contextlib.suppress(OSError):  # a file system without such locks
                fcntl.flock(file, fcntl.LOCK_EX)
            if seen is not None and self._look() == seen:
                self.path.unlink(missing_ok=True)
                self._warned(f"removed {self.path}, the lock of a process that was killed")


def drop_torn_line(journal: Path, lock: JournalLock) -> None:
    """Cut off an incomplete last line that a killed process or a full disk left. The next line would be appended to it,
    and the journal would be unreadable. Waits for the lock."""
    lock.acquire()
    try:
        with open(journal, "r+b") as file:
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                file.truncate(whole)
    finally:
        lock.release()
