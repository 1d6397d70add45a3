"""The process's stop signals, handled in one place: each becomes a request that is answered at the next safe point.

This module imports no large library, so that a command handles signals before it imports torch, which takes seconds.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

# Schedulers send USR1 and USR2 before the end (SLURM's --signal, SGE's -notify). HUP means that the terminal was
# closed.
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)

# A second signal of these kinds comes from an impatient user and takes effect at once. Schedulers and shells repeat the
# others.
_INSISTENT = (signal.SIGINT, signal.SIGTERM)

# A repetition within this time is the same request: a terminal's Ctrl-C reaches torchrun and its processes, and
# torchrun forwards it.
_SAME_REQUEST_SECONDS = 1.0

# Processes started by this program respond to SIGTERM as usual, so that they can be ended. Their parent handles the
# others.
_SHELTERED = {signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP}

_set_handler = signal.signal  # the original function, also while `kept` replaces it


class _Listener:
    """The received signals, and the handlers that were installed before."""

    def __init__(self) -> None:
        self.received: str | None = None
        self.before: dict[int, Any] = {}
        self._first: dict[int, float] = {}

    def receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        self.received = self.received or signal.Signals(number).name
        first = self._first.setdefault(number, now)
        if number not in _INSISTENT or now - first < _SAME_REQUEST_SECONDS:
            return
        before = self.before[number]
        if callable(before):
            before(number, frame)
        elif before is not signal.SIG_IGN:
            _set_handler(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


_listener = _Listener()


def received() -> str | None:
    """Return the name of the first stop signal since `listen`; None if none has arrived."""
    return _listener.received


def listen() -> bool:
    """Handle the stop signals until `release`. Returns whether they were not handled already.

    SIGHUP remains ignored if it was ignored before (`nohup`). Another SIGINT or SIGTERM, a second or more after the
    first, has its previous effect. Handlers belong to the main thread; in any other thread this function does nothing.
    """
    global _listener
    if _listener.before or threading.current_thread() is not threading.main_thread():
        return False
    _listener = _Listener()
    for number in STOPPING:
        if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue
        _listener.before[number] = _set_handler(number, _listener.receive)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)  # signals that a parent's `sheltered` held back arrive now
    return True


def release() -> None:
    """Restore the handlers from before `listen`."""
    global _listener
    for number, handler in _listener.before.items():
        _set_handler(number, signal.SIG_DFL if handler is None else handler)
    _listener = _Listener()


def reclaim() -> None:
    """Install the handlers again, replacing any that a library has installed below Python."""
    if threading.current_thread() is threading.main_thread():
        for number in _listener.before:
            _set_handler(number, _listener.receive)


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Keep our handlers installed within the block: calls to `signal.signal` by a library have no effect on these
    signals."""
    before = signal.signal

    def refuse(number: int, handler: Any) -> Any:
        return signal.getsignal(number) if number in _listener.before else before(number, handler)

    signal.signal = refuse  # type: ignore[assignment]
    try:
        yield
    finally:
        signal.signal = before
        reclaim()


@contextlib.contextmanager
def sheltered(term: bool = False) -> Iterator[None]:
    """Block signals to the process group (from a terminal or a scheduler) in the processes that are started within the
    block. SIGTERM is blocked only with `term`, because it is the usual way to end a process. A signal that arrives
    meanwhile is delivered at the end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING if term else _SHELTERED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
