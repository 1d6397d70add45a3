"""Requests to stop: a stop signal, a time limit, or a request by the process that runs the trial."""

import time
from collections.abc import Callable
from types import TracebackType

from cnnjepa import signals
from cnnjepa.errors import Stopped


class StopRequest:
    """Within the block, stop signals become a request that is read between steps; see `cnnjepa.signals`."""

    def __init__(self, max_hours: float | None = None, asked: Callable[[], str | None] | None = None) -> None:
        """Prepare the request. `asked` returns a further reason to stop, or None; it is called after every step."""
        self._deadline = None if max_hours is None else time.monotonic() + 3600 * max_hours
        self._asked = asked or (lambda: None)
        self._max_hours = max_hours
        self._took_signals = False

    @property
    def reason(self) -> str | None:
        """Return the reason to stop, in words; None to continue."""
        return self._sent() or self._over() or self._asked()

    def tick(self) -> None:
        """Raise Stopped if there is a reason to stop."""
        if reason := self.reason:
            raise Stopped(reason)

    @property
    def before_training(self) -> str | None:
        """Return the reason like `reason`, but without the time limit, so that every session performs at least one
        step."""
        return self._sent() or self._asked()

    def _sent(self) -> str | None:
        return signals.received()

    def _over(self) -> str | None:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return f"--max-hours {self._max_hours:g} has passed"
        return None

    def __enter__(self) -> "StopRequest":
        self._took_signals = signals.listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._took_signals:
            signals.release()
