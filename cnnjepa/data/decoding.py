"""Decoding of image files to pixels. All sources use it. The format is read from the first bytes, never from the name.

JPEG and WebP are decoded by torchvision, NumPy's files by NumPy, and most others by Pillow (`png.py`, `tiff.py`,
`heif.py`), because torchvision's GIF decoder unpacks every frame of an animation to keep one, and its PNG decoder does
not survive damaged files.

An image is decoded without loss and upright, or refused: see `pixels.py` and `orientation.py`.
"""

import io
import re
import warnings
from collections.abc import Callable

import torch
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from cnnjepa.data.array_file import decode_array
from cnnjepa.data.heif import decode_avif, decode_heic, is_avif, is_heic
from cnnjepa.data.jpeg_damage import noting_repairs
from cnnjepa.data.orientation import upright
from cnnjepa.data.pixels import RGB8, UnfitError, fitted, from_pillow
from cnnjepa.data.png import decode_png
from cnnjepa.data.tiff import decode_tiff
from cnnjepa.data.vast import refuse_vast
from cnnjepa.errors import ImageError, RunError
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.pixels import PixelKind

# torchvision 0.29 announces torchcodec as its successor for images; older versions of torch have only this decoder
# (docs/dependencies.md).
warnings.filterwarnings("ignore", "The image decoding and encoding capabilities", DeprecationWarning)

FORMATS = "JPEG, PNG, TIFF, WebP, GIF, BMP, AVIF, HEIC or .npy"

_ALPHA_FLAG = {b"VP8X": (20, 0x10), b"VP8L": (24, 0x10)}  # byte and bit that mark transparency in a WebP file


def decode(encoded: bytes, name: str, kind: PixelKind = RGB8) -> Tensor:
    """Decode the bytes of an image file to pixels [channels, H, W] of `kind`; of an animation, the first frame.

    Raises ImageError, which names the image, for damaged files, for images that `kind` cannot hold without loss or that
    take more than 1 GiB, and for formats whose optional package is missing. Raises RunError if there is no memory. A
    damaged JPEG that libjpeg repairs is decoded and named to `repaired_images`.
    """
    try:
        if not encoded:
            raise ValueError("the file is empty")
        refuse_vast(encoded, kind)
        decoder = _decoder(encoded)
        if decoder is _jpeg:
            return noting_repairs(lambda: _jpeg(encoded, kind), name)
        return decoder(encoded, kind)
    except ConfigError as missing:
        raise ImageError(f"{name} cannot be decoded: {missing}") from None
    except Exception as error:  # Pillow raises a dozen kinds for damaged files
        if isinstance(error, MemoryError) or "not enough memory" in str(error):  # torch raises RuntimeError
            raise RunError(
                f"{name} cannot be decoded: the machine is out of memory; lower runtime.workers or --threads"
            ) from None
        # torchvision's messages begin with the function, source file and line.
        reason = re.sub(r"^.*?\.cpp:\d+, ", "", str(error).strip() or type(error).__name__)
        refused = ImageError(f"{name} cannot be decoded ({reason.splitlines()[0].strip(' .')})")
        refused.fits = error.fits if isinstance(error, UnfitError) else None
        raise refused from None


def _decoder(encoded: bytes) -> Callable[[bytes, PixelKind], Tensor]:
    if encoded.startswith(b"\xff\xd8\xff"):
        return _jpeg
    if encoded.startswith(b"\x89PNG"):
        return decode_png
    if encoded.startswith(b"GIF8"):
        return _gif
    if encoded.startswith(b"RIFF") and encoded[8:12] == b"WEBP":
        return _webp
    if encoded.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return decode_tiff
    if encoded.startswith(b"BM"):
        return lambda content, kind: from_pillow(BmpImageFile(io.BytesIO(content)), kind)
    if encoded.startswith(b"\x93NUMPY"):
        return decode_array
    if is_avif(encoded):
        return decode_avif
    if is_heic(encoded):
        return decode_heic
    raise ValueError(f"it is no {FORMATS}: its first bytes are {encoded[:8]!r}")


def _by_torchvision(encoded: bytes, mode: ImageReadMode = ImageReadMode.RGB) -> Tensor:
    return decode_image(torch.frombuffer(bytearray(encoded), dtype=torch.uint8), mode=mode)


def _jpeg(encoded: bytes, kind: PixelKind) -> Tensor:
    if kind == RGB8:
        return upright(_by_torchvision(encoded), encoded)
    pixels = _by_torchvision(encoded, ImageReadMode.UNCHANGED)
    if pixels.shape[0] == 4:  # four inks, which Pillow reads with the right sign
        return from_pillow(JpegImageFile(io.BytesIO(encoded)), kind)
    return fitted(upright(pixels, encoded).permute(1, 2, 0).numpy(), kind)


def _webp(encoded: bytes, kind: PixelKind) -> Tensor:
    place, bit = _ALPHA_FLAG.get(encoded[12:16], (0, 0))
    transparent = len(encoded) > place and bool(encoded[place] & bit)
    pixels = upright(_by_torchvision(encoded, ImageReadMode.RGB_ALPHA if transparent else ImageReadMode.RGB), encoded)
    return (
        pixels if pixels.shape[0] == 3 and kind == RGB8 else fitted(pixels.permute(1, 2, 0).numpy(), kind, transparent)
    )


def _gif(encoded: bytes, kind: PixelKind) -> Tensor:
    image = GifImageFile(io.BytesIO(encoded))
    if not image.tile or image.tile[0].extents != (0, 0, *image.size):
        raise ValueError("its first frame does not cover it, and pixels outside have no colour; convert it to JPEG")
    return from_pillow(image, kind)
