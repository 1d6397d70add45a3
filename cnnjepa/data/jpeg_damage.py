"""Damaged JPEG files that libjpeg repairs: which they are, and what is wrong with them.

libjpeg decodes a file with damaged data, fills what it cannot read, and prints one line without a name to C's `stderr`.
torchvision passes nothing else on, so this module reads that line: while a JPEG is decoded, the variable `stderr` of
the C library is a file in memory. The GNU C library documents that this variable may be set; with another C library
the line appears on standard error as it is. Python's own standard error does not use the variable.
"""

import contextlib
import ctypes
import os
import platform
import re
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from cnnjepa.data.shared_arrays import anonymous_file

T = TypeVar("T")

# Beginnings of libjpeg's warnings (its file jerror.h).
_WARNING = re.compile(
    r"Corrupt JPEG data|Premature end of JPEG|Inconsistent progression|Invalid SOS parameters|Unknown Adobe color|"
    r"Warning: unknown JFIF|Application transferred too many"
)
_UNBUFFERED = 2  # setvbuf's _IONBF

_of_thread = threading.local()


@contextlib.contextmanager
def repaired_images() -> Iterator[list[str]]:
    """Collect the repaired images that this thread decodes in the block, by name and reason."""
    outer = getattr(_of_thread, "found", None)
    found: list[str] = []
    _of_thread.found = found
    try:
        yield found
    finally:
        _of_thread.found = outer


def noting_repairs(decode: Callable[[], T], name: str) -> T:
    """Return `decode()`. An image that libjpeg repaired meanwhile is added to the `repaired_images` of this thread,
    or printed on standard error if nobody collects them."""
    found = getattr(_of_thread, "found", None)
    if not _listening.possible:
        return decode()
    image, warning = _listening.listen(decode)
    if warning:
        told = f"{name} is damaged and was repaired while reading ({warning})"
        if found is None:
            print(told, file=sys.stderr)
        else:
            found.append(told)
    return image


class _CStandardError:
    """C's variable `stderr`, and a file in memory to which it can be set."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None)
        libc.fdopen.restype = ctypes.c_void_p
        self.file = anonymous_file()
        self._variable = ctypes.c_void_p.in_dll(libc, "stderr")
        self._usual = self._variable.value
        self._memory = libc.fdopen(self.file, b"a")
        libc.setvbuf(ctypes.c_void_p(self._memory), None, _UNBUFFERED, ctypes.c_size_t(0))

    def redirect(self) -> None:
        self._variable.value = self._memory

    def restore(self) -> None:
        self._variable.value = self._usual

    def size(self) -> int:
        """Return the number of bytes printed."""
        return os.fstat(self.file).st_size

    def lines(self, start: int = 0) -> list[str]:
        """Return the lines printed after the first `start` bytes."""
        return os.pread(self.file, self.size() - start, start).decode("utf-8", "replace").splitlines()

    def clear(self) -> None:
        """Forget what was printed. Lines that are not libjpeg's are printed on standard error."""
        others = [line for line in self.lines() if not _WARNING.match(line)]
        os.ftruncate(self.file, 0)
        if others:
            os.write(2, "".join(f"{line}\n" for line in others).encode())


class _Listening:
    """Decodes while listening to libjpeg. If several threads decode at the time of a warning, each of them decodes its
    image once more, alone, so that the warning gets the right name."""

    def __init__(self) -> None:
        self.possible = platform.libc_ver()[0] == "glibc"
        self._changed = threading.Condition()
        self._error: _CStandardError | None = None
        self._decoding = 0  # threads that are decoding
        self._begun = 0  # decodings that have begun so far
        self._waiting = 0  # threads that decode alone, or wait until they can

    def listen(self, decode: Callable[[], T]) -> tuple[T, str]:
        """Return `decode()` and libjpeg's first warning about it; empty if there is none."""
        image, warning, alone = self._listened(decode, alone=False)
        if warning and not alone:
            image, warning, _ = self._listened(decode, alone=True)
        return image, warning

    def _listened(self, decode: Callable[[], T], alone: bool) -> tuple[T, str, bool]:
        """Return `decode()`, the first warning, and whether no other thread was decoding meanwhile."""
        with self._changed:
            self._waiting += alone
            self._changed.wait_for(lambda: not self._decoding if alone else not self._waiting)
            error = self._error = self._error or _CStandardError()
            if not self._decoding:
                error.redirect()
            others, start = self._decoding, error.size()
            self._decoding += 1
            self._begun += 1
            begun = self._begun
        try:
            image = decode()
        finally:
            with self._changed:
                lines = error.lines(start) if error.size() > start else []
                was_alone = not others and self._begun == begun
                self._decoding -= 1
                self._waiting -= alone
                if not self._decoding:
                    error.restore()
                    if error.size():
                        error.clear()
                if self._waiting or alone:
                    self._changed.notify_all()
        return image, next((line for line in lines if _WARNING.match(line)), ""), was_alone

    def in_child(self) -> None:
        """Start anew in a forked process. The file in memory is the parent's."""
        if self._error is not None:
            self._error.restore()
            os.close(self._error.file)
        self.__init__()  # type: ignore[misc]


_listening = _Listening()
os.register_at_fork(after_in_child=_listening.in_child)
