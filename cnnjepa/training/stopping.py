"""Being asked to stop: SIGTERM, SIGINT, SIGUSR1 (SLURM's warning), a limit of hours, or whoever runs the trial."""

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StopRequest:
    """While entered, turns those signals into a request that the loop reads between steps.

    A second signal of the same kind acts as it did before, so that an impatient Ctrl-C still ends the process.
    """

    def __init__(self, max_hours: float | None = None, asked: Callable[[], str | None] | None = None) -> None:
        """`asked` gives a reason to stop from elsewhere, or None; it is called after every step."""
        self._deadline = None if max_hours is None else time.monotonic() + 3600 * max_hours
        self._asked = asked or (lambda: None)
        self._max_hours = max_hours
        self._signal: str | None = None
        self._before: dict[int, Any] = {}

    @property
    def reason(self) -> str | None:
        """Why to stop, in words; None to go on."""
        if self._signal is None and self._deadline is not None and time.monotonic() >= self._deadline:
            return f"--max-hours {self._max_hours:g} is over"
        return self._signal or self._asked()

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._receive)
        return self

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._signal = signal.Signals(number).name
        signal.signal(number, self._before[number])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
