"""Refusal of images that would take more than a gibibyte of memory, before a pixel is decoded."""

import io
from collections.abc import Callable

from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from cnnjepa.schemas.pixels import PixelKind

MOST_BYTES = 2**30
"""Largest image that is decoded: 18,918 x 18,918 pixels of 8-bit RGB. Every loader process may hold one."""

# First bytes of a format, bytes that a file of more than `MOST_BYTES` of pixels has at least (a JPEG takes a bit for 64
# pixels, a PNG a thousandth of its pixels, a GIF less), and its class. A WebP has at most 16,383 pixels on a side.
_FORMATS: tuple[tuple[bytes, int, Callable[[io.BytesIO], ImageFile]], ...] = (
    (b"\xff\xd8\xff", 2**18, JpegImageFile),
    (b"\x89PNG", 2**18, PngImageFile),
    (b"GIF8", 2**15, GifImageFile),
    (b"BM", 2**18, BmpImageFile),
    (b"II", 0, TiffImageFile),
    (b"MM", 0, TiffImageFile),
)
_BYTES = {"uint8": 1, "uint16": 2, "float32": 4}


def refuse_vast(encoded: bytes, kind: PixelKind) -> None:
    """Raise ValueError, which states the size, for an image that takes more than `MOST_BYTES` in the form `kind`."""
    size = _size(encoded)
    if size is None:
        return
    width, height = size
    needed = width * height * kind.channels * _BYTES[kind.dtype]
    if needed > MOST_BYTES:
        raise ValueError(
            f"it has {width:,} x {height:,} pixels, which take {needed / 2**30:.1f} GiB; an image may take at most "
            f"{MOST_BYTES / 2**30:g} GiB: cut it into tiles, or store it smaller"
        )


def _size(encoded: bytes) -> tuple[int, int] | None:
    """Return (width, height) by the file's head; None for a small file, and for one that its decoder will refuse."""
    head = next((one for one in _FORMATS if encoded.startswith(one[0]) and len(encoded) >= one[1]), None)
    opened = AvifImageFile if head is None and encoded[4:8] == b"ftyp" else head[2] if head else None
    if opened is None:
        return None
    try:
        return opened(io.BytesIO(encoded)).size
    except Exception:  # Pillow raises a dozen kinds for damaged files
        return None
