"""Decoding of image files to pixels. All sources use it. The format is read from the first bytes, never from the name.

JPEG and WebP are decoded by torchvision. PNG and GIF are decoded by Pillow to the same pixels, because torchvision's
PNG decoder writes past its buffers when compressed data are damaged, which kills the process, and its GIF decoder
unpacks every frame of an animation to keep one.

An image is decoded without loss or refused: 16 bits per channel do not fit in 8, and transparent pixels have no defined
colour.
"""

import io
import re
import warnings
import zlib
from collections.abc import Callable, Iterator

import torch
from PIL import Image
from PIL.GifImagePlugin import GifImageFile
from PIL.PngImagePlugin import PngImageFile
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from cnnjepa.errors import ImageError

# torchvision 0.29 announces torchcodec as its successor for images; older versions of torch have only this decoder
# (docs/dependencies.md).
warnings.filterwarnings("ignore", "The image decoding and encoding capabilities", DeprecationWarning)

_ALPHA_FLAG = {b"VP8X": (20, 0x10), b"VP8L": (24, 0x10)}  # byte and bit that mark transparency in a WebP file
_PNG_DEPTH = 24  # position of the byte that holds the bits per channel
_PNG_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")


def decode(encoded: bytes, name: str) -> Tensor:
    """Decode JPEG, PNG, WebP or GIF bytes to uint8 RGB [3, H, W]; of an animated GIF, the first frame.

    Raises ImageError, which names the image, for damaged files and for images that 8-bit RGB cannot represent.
    """
    try:
        if not encoded:
            raise ValueError("the file is empty")
        return _decoder(encoded)(encoded)
    except Exception as error:  # Pillow raises a dozen kinds for damaged files, also MemoryError
        # torchvision's messages begin with the function, source file and line.
        reason = re.sub(r"^.*?\.cpp:\d+, ", "", str(error).strip() or type(error).__name__)
        raise ImageError(f"{name} cannot be decoded ({reason.splitlines()[0].strip(' .')})") from None


def rgb(image: Image.Image) -> Tensor:
    """Convert a Pillow image to uint8 [3, H, W], channels-last in memory.

    Raises ValueError if 8-bit RGB would lose information: more than 8 bits per channel, or transparent pixels.
    """
    if image.mode.startswith(("I", "F")):
        raise ValueError(_too_deep(f"its pixels are of mode {image.mode}"))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        least, _ = image.getchannel("A").getextrema()
        _refuse_transparency(least)  # type: ignore[arg-type]
    image = image.convert("RGB")
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(image.height, image.width, 3).permute(2, 0, 1)


def _decoder(encoded: bytes) -> Callable[[bytes], Tensor]:
    if encoded.startswith(b"\x89PNG"):
        return _png
    if encoded.startswith(b"GIF8"):
        return _gif
    if encoded.startswith(b"\xff\xd8\xff"):
        return _by_torchvision
    if encoded.startswith(b"RIFF") and encoded[8:12] == b"WEBP":
        return _webp
    raise ValueError(f"it is no JPEG, PNG, WebP or GIF: its first bytes are {encoded[:8]!r}")


def _by_torchvision(encoded: bytes, mode: ImageReadMode = ImageReadMode.RGB) -> Tensor:
    return decode_image(torch.frombuffer(bytearray(encoded), dtype=torch.uint8), mode=mode)


def _webp(encoded: bytes) -> Tensor:
    place, bit = _ALPHA_FLAG.get(encoded[12:16], (0, 0))
    if not (len(encoded) > place and encoded[place] & bit):
        return _by_torchvision(encoded)
    image = _by_torchvision(encoded, ImageReadMode.RGB_ALPHA)
    _refuse_transparency(int(image[3].min()))
    return image[:3]


def _gif(encoded: bytes) -> Tensor:
    image = GifImageFile(io.BytesIO(encoded))
    if not image.tile or image.tile[0].extents != (0, 0, *image.size):
        raise ValueError("its first frame does not cover it, and pixels outside have no colour; convert it to JPEG")
    return rgb(image)


def _png(encoded: bytes) -> Tensor:
    """Decode a PNG from the chunks that hold pixels. Their checksums are verified here because Pillow does not do so.
    Other chunks are dropped: comments (Pillow refuses large ones) and the further frames of an animation."""
    kept = bytearray(encoded[:8])
    for kind, chunk in _chunks(encoded):
        if kind in _PNG_CHUNKS:
            kept += chunk
    if kept[12:16] != b"IHDR" or b"IDAT" not in kept:
        raise ValueError("it holds no image data")
    if kept[_PNG_DEPTH] == 16:
        raise ValueError(_too_deep("it has 16 bits per channel"))
    return rgb(PngImageFile(io.BytesIO(kept)))


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
        if needed and kind not in _PNG_CHUNKS:
            raise ValueError(f"it needs the chunk {kind!r}, which is no standard PNG's")
        if (needed or kind == b"tRNS") and zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:]):
            raise ValueError(f"the checksum of its {kind.decode('ascii')} chunk is wrong: it is damaged")
        yield kind, chunk
        if kind == b"IEND":
            return
        place += length + 12


def _too_deep(what: str) -> str:
    return f"{what} and only 8 can be read; convert it to 8 bits per channel"


def _refuse_transparency(least: int) -> None:
    """Raise an error for transparent pixels. `least` is the smallest alpha, 0 to 255. A fourth channel that is opaque
    everywhere is accepted."""
    if least < 255:
        raise ValueError(
            f"it has transparent pixels (alpha down to {least} of 255), and RGB has no room for them; put it on a "
            "background and store it without transparency"
        )
