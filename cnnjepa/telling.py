"""Telling never ends a run: what is printed, drawn or sent may fail, and the training goes on.

Data is not telling: a run fails (exit code 1) when a checkpoint, metrics.jsonl or result.json cannot be written. The
terminal, log files, progress and TensorBoard are telling. Two things keep them from raising: streams whose writes
cannot fail, and `unfailing` for objects. Nothing heavy is imported.
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

# How long a write waits for a reader of a pipe that does not block. Assumption.
_READER_SECONDS = 1.0


class _LossyFile(io.FileIO):
    """A file whose writes never raise: what cannot be written (reader gone, disk full) is dropped."""

    def write(self, data: Any) -> int:
        with contextlib.suppress(OSError):
            written = super().write(data)
            if written is None:  # a pipe that does not block, and is full
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
    """Open a log file to append UTF-8 lines to. Neither this nor a write to it raises OSError: lines are dropped."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = _LossyFile(path, "a")
    except OSError:
        raw = _LossyFile(os.devnull, "a")
    return _text_over(raw, "utf-8", "backslashreplace", line_buffering=True, write_through=False)


def unbreakable_streams() -> None:
    """Exchange sys.stdout and sys.stderr for streams over the same descriptors whose writes cannot raise; a character
    that the encoding lacks becomes `?`. A descriptor that was closed becomes /dev/null, so that no file of the run is
    opened in its place. Streams that are not the interpreter's own (a test's, a notebook's) are left alone."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number, which is this one
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
    """One line instead of a traceback: TensorBoard's writer, say, raises in a thread of its own too."""
    name = "a thread" if failure.thread is None else failure.thread.name
    _say(f"note: {name} ended with {failure.exc_type.__name__}: {failure.exc_value}")


def unfailing(make: Callable[[], T], what: str) -> T:
    """Return what `make` gives, but with methods that never raise: the first failure is said once on standard error,
    naming `what`; a call that fails gives None. When `make` itself fails, every call does nothing."""
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
            _say(f"note: {self._what} failed ({type(error).__name__}: {error}); the run goes on without it")


def _say(text: str) -> None:
    with contextlib.suppress(Exception):  # standard error is whatever an embedding program made it
        print(text, file=sys.stderr)
