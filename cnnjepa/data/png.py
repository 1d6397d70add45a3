"""PNG files. Checksums and compressed data are verified here, because Pillow ignores wrong checksums, and torchvision's
decoder writes past its buffers when compressed data are damaged, which kills the process."""

import io
import zlib
from collections.abc import Iterator

import torch
from PIL.PngImagePlugin import PngImageFile
from torch import Tensor
from torchvision.io import decode_image

from cnnjepa.data.orientation import turned
from cnnjepa.data.pixels import fitted, from_pillow
from cnnjepa.schemas.pixels import PixelKind

_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_KEPT = (*_PIXELS, b"eXIf")
_SAMPLES = {0: 1, 2: 3, 4: 2, 6: 4}  # samples per pixel of each colour type that can have 16 bits
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def decode_png(encoded: bytes, kind: PixelKind) -> Tensor:
    """Decode the pixels of a PNG. 8 bits and fewer are decoded by Pillow. 16 bits are decoded by torchvision, because
    Pillow keeps 8 of them in colour."""
    kept, data, names = needed_chunks(encoded)
    if kept[24] != 16:
        return from_pillow(PngImageFile(io.BytesIO(kept)), kind)
    if b"tRNS" in names:
        raise ValueError(
            "one of its colours is declared transparent, and it has 16 bits; store it without transparency"
        )
    _verify(kept, bytes(data))
    pixels = decode_image(torch.frombuffer(kept, dtype=torch.uint8))
    if b"eXIf" in names:
        pixels = turned(pixels, PngImageFile(io.BytesIO(kept)))
    return fitted(pixels.permute(1, 2, 0).numpy(), kind, alpha=kept[25] in (4, 6))


def needed_chunks(encoded: bytes) -> tuple[bytearray, bytearray, set[bytes]]:
    """Return a PNG of the chunks that hold pixels and orientation, its compressed data, and the kinds of its chunks.
    Other chunks are dropped: comments (Pillow refuses large ones) and the further frames of an animation. Raises
    ValueError for a file that is no PNG, holds no pixels, or has a damaged chunk."""
    if not encoded.startswith(b"\x89PNG"):
        raise ValueError("it is no PNG file")
    kept, data, names = bytearray(encoded[:8]), bytearray(), set[bytes]()
    for name, chunk in _chunks(encoded):
        if name in _KEPT:
            kept += chunk
            names.add(name)
        if name == b"IDAT":
            data += chunk[8:-4]
    if kept[12:16] != b"IHDR" or b"IDAT" not in names:
        raise ValueError("it holds no image data")
    return kept, data, names


def _verify(encoded: bytearray, data: bytes) -> None:
    """Raise ValueError unless the compressed data of a 16-bit PNG are exactly the rows that its header announces."""
    width, height = int.from_bytes(encoded[16:20]), int.from_bytes(encoded[20:24])
    samples = _SAMPLES.get(encoded[25])
    if samples is None or encoded[26] or encoded[27] or encoded[28] > 1 or not width or not height:
        raise ValueError("its header is damaged")
    passes = _ADAM7 if encoded[28] else ((0, 0, 1, 1),)
    rows = [(-(-(height - y) // dy), -(-(width - x) // dx)) for x, y, dx, dy in passes if width > x and height > y]
    lines = [(count, 1 + 2 * samples * across) for count, across in rows if count > 0 and across > 0]
    expected = sum(count * length for count, length in lines)
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(data, expected + 1)
    except zlib.error as error:
        raise ValueError(f"its compressed data are damaged: {error}") from None
    if len(found) != expected or not stream.eof:
        raise ValueError(f"its compressed data hold {len(found):,} bytes, and its size needs {expected:,}")
    place = 0
    for count, length in lines:
        if max(found[place : place + count * length : length]) > 4:
            raise ValueError("a row of it has an unknown filter")
        place += count * length


def _chunks(encoded: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield (kind, whole chunk) of a PNG. Raises ValueError for a chunk that is cut off, damaged, or critical but
    unknown."""
    data, place = memoryview(encoded), 8
    while place < len(data):
        length, kind = int.from_bytes(data[place : place + 4]), bytes(data[place + 4 : place + 8])
        chunk = data[place : place + length + 12]
        if len(chunk) < length + 12:
            raise ValueError("it is cut short")
        needed = not kind[0] & 0x20  # the case of a chunk's first letter says so
        if needed and kind not in _PIXELS:
            raise ValueError(f"it needs the chunk {kind!r}, which is no standard PNG's")
        if (needed or kind == b"tRNS") and zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:]):
            raise ValueError(f"the checksum of its {kind.decode('ascii')} chunk is wrong: it is damaged")
        yield kind, chunk
        if kind == b"IEND":
            return
        place += length + 12
