"""The process's stop signals, owned in one place: each becomes a request that is answered at the next safe point.

Nothing heavy is imported, so that a command listens before it imports torch, which takes seconds.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

# USR1 and USR2 are what schedulers send ahead of the end (SLURM's --signal, SGE's -notify); HUP is a closed terminal.
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)

# A second one of these is a person's impatience and acts at once. Schedulers and shells repeat the others.
_INSISTENT = (signal.SIGINT, signal.SIGTERM)

# Within this time a repetition is the same request: a terminal's Ctrl-C reaches torchrun and its processes, and
# torchrun passes it on.
_SAME_REQUEST_SECONDS = 1.0

# Processes that are started by us answer SIGTERM as usual, so that they can be ended; the rest is their parent's.
_SHELTERED = {signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP}

_set_handler = signal.signal  # the real one, also while `kept` stands in its place


class _Listener:
    """What was received, and the handlers that stood before."""

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
    """The name of the first stop signal since `listen`; None before one comes."""
    return _listener.received


def listen() -> bool:
    """Take the stop signals until `release`; return whether they were not taken before.

    SIGHUP stays ignored where it was (`nohup`). Another SIGINT or SIGTERM, a second or more after the first, acts as
    it did before. Handlers belong to the main thread: anywhere else this does nothing.
    """
    global _listener
    if _listener.before or threading.current_thread() is not threading.main_thread():
        return False
    _listener = _Listener()
    for number in STOPPING:
        if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue
        _listener.before[number] = _set_handler(number, _listener.receive)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)  # what a parent's `sheltered` held back comes now
    return True


def release() -> None:
    """Give the signals back as they were before `listen`."""
    global _listener
    for number, handler in _listener.before.items():
        _set_handler(number, signal.SIG_DFL if handler is None else handler)
    _listener = _Listener()


def reclaim() -> None:
    """Install the handlers again, over any that a library has installed below Python."""
    if threading.current_thread() is threading.main_thread():
        for number in _listener.before:
            _set_handler(number, _listener.receive)


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Keep the handlers ours while entered: a library that calls `signal.signal` for one of them is not obeyed."""
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
    """Keep signals to the process group (a terminal's, a scheduler's) from the processes that are started while
    entered; SIGTERM only with `term`, because a process is usually ended by it. One that comes meanwhile is received
    at the end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING if term else _SHELTERED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
