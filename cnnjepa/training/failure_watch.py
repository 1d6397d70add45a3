"""Notification of all processes of a run when one of them fails.

A process that raised alone would leave the others in a collective: gloo notices a closed connection, NCCL waits for its
timeout. The failing process therefore writes its reason to the store through which the group was formed. A thread in
every process polls the store, and the training loop reads what the thread found, without a collective and without
waiting for the device. A process that does not return in time, because it is blocked in a collective, is ended by its
thread.
"""

import contextlib
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable

from torch.distributed.distributed_c10d import PrefixStore, Store

# Seconds; assumptions. One poll is a request of about 50 µs to the store.
_LOOK_EVERY = 0.5
_HEARD_WITHIN = 5.0
_SAID_WITHIN = 30.0  # the first process that fails writes result.json before it reports the failure
_LEAVE_WITHIN = 20.0


class FailureWatch:
    """The view of one process. `reported` is what every process raises: (kind of error, text), or None while no process
    fails."""

    def __init__(self, store: Store, rank: int, world_size: int) -> None:
        self.reported: tuple[str, str] | None = None
        self._store = PrefixStore("cnnjepa/failure", store.clone())
        self._others = [f"heard/{other}" for other in range(world_size) if other != rank]
        self._rank, self._left = rank, threading.Event()
        # A separate connection: a request of the main thread may wait for minutes.
        thread_store = PrefixStore("cnnjepa/failure", store.clone())
        self._thread = threading.Thread(target=self._look, args=(thread_store,), daemon=True, name="failure-watch")
        self._thread.start()

    def claim(self) -> bool:
        """Return whether this process is the first that fails. The first one records the failure and then calls `say`;
        the others call `hear`. Without a store (it ended with its process) every process is the first."""
        try:
            return self._store.add("claims", 1) == 1
        except RuntimeError:
            return True

    def say(self, kind: str, text: str) -> None:
        """Notify the other processes, and wait (some seconds at most) until they have received the message: this
        process may hold the store, and a launcher ends the others as soon as one exits."""
        self.reported = (kind, text)
        with contextlib.suppress(RuntimeError):
            self._store.set("reported", f"{kind}:{text}")
            _until(lambda: self._store.check(self._others), _HEARD_WITHIN)

    def hear(self, seconds: float = _SAID_WITHIN) -> tuple[str, str] | None:
        """Return the message of the first process that failed; None if none arrives within `seconds`."""
        with contextlib.suppress(RuntimeError):
            _until(lambda: self.reported is not None or self._take(self._store), seconds)
        return self.reported

    def leave(self) -> None:
        """Mark this process as outside of every collective. From now on its thread does not end it."""
        self._left.set()
        self._thread.join(2 * _LOOK_EVERY)

    def _take(self, store: Store) -> bool:
        if not store.check(["reported"]):
            return False
        kind, _, text = store.get("reported").decode().partition(":")
        self.reported = (kind, text)
        store.set(f"heard/{self._rank}", "")
        return True

    def _look(self, store: Store) -> None:
        while not self._left.wait(_LOOK_EVERY):
            try:
                if self._take(store):
                    break
            except RuntimeError:  # the store ended with its process; the main thread notices a broken connection
                return
        if not self._left.wait(_LEAVE_WITHIN):
            self._end()

    def _end(self) -> None:
        assert self.reported is not None
        for child in multiprocessing.active_children():
            child.kill()
        with contextlib.suppress(OSError, ValueError):
            print(f"cnnjepa: {self.reported[1]} (rank {self._rank} was waiting for it)", file=sys.stderr, flush=True)
        os._exit(1)


def _until(true: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not true() and time.monotonic() < until:
        time.sleep(0.02)
