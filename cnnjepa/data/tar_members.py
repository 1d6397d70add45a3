"""The members of a tar archive, in order. A damaged or cut-off archive is an error."""

import lzma
import posixpath
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO, Any

UNREADABLE = (tarfile.TarError, EOFError, OSError, ValueError, lzma.LZMAError, zlib.error)
"""Errors that reading an archive can raise."""


def members(file: IO[bytes], stream: bool = False) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Yield every member with its archive, from an open file. `stream` tells that the file allows no random access.

    Raises one of `UNREADABLE` for a damaged header, and if the archive ends before its end mark.
    """
    mode: Any = "r|" if stream else "r:"
    # With `ignore_zeros`, archives that were joined with `cat` are read to the last one.
    with tarfile.open(mode=mode, fileobj=file, tarinfo=_Header, ignore_zeros=True) as archive:
        while (member := archive.next()) is not None:
            yield archive, member
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep all of them (1 kB each)
        if not getattr(archive, "at_end", False):
            raise ValueError("it ends before its end mark; the copy is not whole")


def inside_of(name: str) -> str:
    """Return a member's path below the archive's root, in normalised form."""
    parts = posixpath.normpath(name).split("/")
    while parts and parts[0] in ("", ".", ".."):
        parts.pop(0)
    return "/".join(parts)


class _Header(tarfile.TarInfo):
    """Header of a member. tarfile takes a damaged header, and the end of a file that was cut off between two members,
    for the end of the archive; here the first is an error, and the archive's `at_end` says whether an end mark was
    read after the last member."""

    @classmethod
    def fromtarfile(cls, tarfile_: Any) -> "_Header":
        start = tarfile_.offset
        try:
            header = super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            tarfile_.at_end = True
            raise
        except tarfile.InvalidHeaderError as error:  # type: ignore[attr-defined]
            if getattr(tarfile_, "at_end", False):  # whatever follows the end mark is no archive
                raise tarfile.EmptyHeaderError from None  # type: ignore[attr-defined]
            if start:
                raise ValueError(f"the header at byte {start:,} is damaged ({error})") from None
            raise
        tarfile_.at_end = False
        return header
