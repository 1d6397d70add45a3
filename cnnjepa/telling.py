"""Output that never ends a run: printing, drawing or sending may fail, and the training continues.

Data are different: a run fails (exit code 1) if a checkpoint, metrics.jsonl or result.json cannot be written. The
terminal, log files, progress and TensorBoard are output. Two mechanisms prevent them from raising: streams whose writes
cannot fail, and `unfailing` for objects. This module imports no large library.
"""

import contextlib
import io
import os
import select
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO, TypeVar, cast

T = TypeVar("T")

# Seconds that a write waits for the reader of a non-blocking pipe. Assumption.
_READER_SECONDS = 1.0


class _LossyFile(io.FileIO):
    """A file whose writes never raise: data that cannot be written (reader gone, disk full) are dropped."""

    def write(self, data: Any) -> int:
        with contextlib.suppress(OSError):
            written = super().write(data)
            if written is None:  # the pipe is non-blocking and full
                select.select([], [self], [], _READER_SECONDS)
                written = super().write(data)
            if written is not None:
                return written
        return memoryview(data).nbytes

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


def _text_over(raw: _LossyFile, encoding: str, errors: str, line_buffering: bool, write_through: bool) -> TextIO:
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=encoding, errors=errors, line_buffering=line_buffering,
        write_through=write_through,
    )  # fmt: skip


def open_log(path: Path) -> TextIO:
    """Open a log file to append UTF-8 lines to. Neither this call nor a write to the file raises OSError: lines are
    dropped instead."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = _LossyFile(path, "a")
    except OSError:
        raw = _LossyFile(os.devnull, "a")
    return _text_over(raw, "utf-8", "backslashreplace", line_buffering=True, write_through=False)


def unbreakable_streams() -> None:
    """Replace sys.stdout and sys.stderr by streams over the same descriptors whose writes cannot raise. A character
    that the encoding lacks becomes `?`. A closed descriptor becomes /dev/null, so that no file of the run is opened in
    its place. Streams that are not the interpreter's own (in a test or a notebook) are not changed."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest free number, which is this one
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__"):
            continue
        raw = _LossyFile(descriptor, "w", closefd=False)
        if stream is None:
            setattr(sys, name, _text_over(raw, "utf-8", "replace", line_buffering=True, write_through=False))
            continue
        with contextlib.suppress(OSError):
            stream.flush()
        errors = "replace" if stream.errors in ("strict", "surrogateescape") else stream.errors
        setattr(
            sys,
            name,
            _text_over(raw, stream.encoding, errors, stream.line_buffering or raw.isatty(), stream.write_through),
        )
    threading.excepthook = _say_what_a_thread_failed_of


def _say_what_a_thread_failed_of(failure: threading.ExceptHookArgs) -> None:
    """Print one line instead of a traceback, for example when TensorBoard's writer raises in its own thread."""
    name = "a thread" if failure.thread is None else failure.thread.name
    _say(f"note: {name} ended with {failure.exc_type.__name__}: {failure.exc_value}")


def unfailing(make: Callable[[], T], what: str) -> T:
    """Return the result of `make`, changed so that its methods never raise. The first failure is reported once on
    standard error, with the name `what`; a call that fails returns None. If `make` itself fails, every call does
    nothing."""
    return cast(T, _Unfailing(make, what))


class _Unfailing:
    def __init__(self, make: Callable[[], Any], what: str) -> None:
        self._what, self._said = what, False
        self._inner = None
        try:
            self._inner = make()
        except Exception as error:
            self._failed(error)

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._inner is None:
                return None
            try:
                return getattr(self._inner, name)(*args, **kwargs)
            except Exception as error:
                self._failed(error)
                return None

        return call

    def _failed(self, error: Exception) -> None:
        if not self._said:
            self._said = True
            _say(f"note: {self._what} failed ({type(error).__name__}: {error}); the run continues without it")


def _say(text: str) -> None:
    with contextlib.suppress(Exception):  # standard error may be any object that an embedding program set
        print(text, file=sys.stderr)
