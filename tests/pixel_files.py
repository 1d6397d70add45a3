"""Bytes of image files that Pillow cannot write: 16-bit PNG, TIFF of many channels, NumPy arrays.

Shapes: H x W pixels, K channels.
"""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def file_of(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png16(pixels_HWK: NDArray[np.uint16], interlaced: bool = False, extra: bytes = b"") -> bytes:
    """A 16-bit PNG, whose rows use the filters 0 (none), 1 (left) and 2 (up)."""
    height, width, channels = pixels_HWK.shape
    data = b""
    for y, x, dy, dx in ADAM7 if interlaced else ((0, 0, 1, 1),):
        part = pixels_HWK[y::dy, x::dx].astype(">u2")
        if not part.size:
            continue
        rows = np.frombuffer(part.tobytes(), np.uint8).reshape(part.shape[0], -1)
        for number, row in enumerate(rows):
            kind = number % 3
            before = np.concatenate([np.zeros(2 * channels, np.uint8), row[: -2 * channels]])
            base = (np.zeros_like(row), before, rows[number - 1] if number else np.zeros_like(row))[kind]
            data += bytes([kind]) + (row - base).tobytes()
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, int(interlaced))
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiff(pixels_HWK: NDArray[Any], planar: bool = False, pages: int = 1, reduced: bool = False) -> bytes:
    """An uncompressed TIFF with all samples in one strip, or one strip per channel."""
    height, width, channels = pixels_HWK.shape
    bits, kind = 8 * pixels_HWK.itemsize, {"u": 1, "i": 2, "f": 3}[pixels_HWK.dtype.kind]
    data = (np.moveaxis(pixels_HWK, 2, 0) if planar else pixels_HWK).tobytes()
    out, after = bytearray(b"II*\0\0\0\0\0" + data), 8 + len(data)
    strips = channels if planar else 1
    link = 4
    for page in range(pages):
        tables, size = bytearray(), len(data) // strips
        entries = [
            (254, 4, [int(reduced and page > 0)]), (256, 4, [width]), (257, 4, [height]), (258, 3, [bits] * channels),
            (259, 3, [1]), (262, 3, [2 if channels == 3 else 1]), (273, 4, [8 + size * n for n in range(strips)]),
            (277, 3, [channels]), (278, 4, [height]), (279, 4, [size] * strips), (284, 3, [2 if planar else 1]),
            *([(338, 3, [0] * (channels - 1))] if channels not in (1, 3) else []), (339, 3, [kind] * channels),
        ]  # fmt: skip
        table = struct.pack("<H", len(entries))
        for tag, form, values in entries:
            packed = struct.pack(f"<{len(values)}{'I' if form == 4 else 'H'}", *values)
            if len(packed) > 4:
                tables += packed
                packed = struct.pack("<I", after + len(tables) - len(packed))
            table += struct.pack("<HHI", tag, form, len(values)) + packed.ljust(4, b"\0")
        out += tables
        out[link : link + 4] = struct.pack("<I", len(out))
        link = len(out) + len(table)
        out += table + b"\0\0\0\0"
        after = len(out)
    return bytes(out)


def write_deep_images(root: Path, channels: int, encode: Callable[[NDArray[Any]], bytes], ending: str) -> None:
    """Two classes of 16-bit images of 32 x 32 pixels, 40 of each for training and 30 for validation."""
    draw = np.random.default_rng(5)
    for split, count in (("train", 40), ("val", 30)):
        for label, name in enumerate(("low", "high")):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(200 + 300 * label, 900 + 300 * label, (32, 32, channels), dtype=np.uint16)
                (root / split / name / f"{number}.{ending}").write_bytes(encode(pixels))
