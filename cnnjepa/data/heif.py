"""AVIF, which Pillow decodes, and HEIC, which needs the optional package pillow-heif. Both decode to 8 bits."""

import io

from PIL import AvifImagePlugin
from PIL.ImageFile import ImageFile
from torch import Tensor

from cnnjepa.data.pixels import from_pillow
from cnnjepa.optional import needed
from cnnjepa.schemas.pixels import PixelKind

_BRANDS_OF_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_HIGH_BIT_DEPTH = 0x40  # in the third byte of AV1's configuration: 10 or 12 bits


def is_avif(encoded: bytes) -> bool:
    """Return whether the first bytes are those of an AVIF file."""
    return encoded[4:8] == b"ftyp" and (encoded[8:12] in (b"avif", b"avis") or b"avif" in encoded[16:48])


def is_heic(encoded: bytes) -> bool:
    """Return whether the first bytes are those of a HEIC file."""
    return encoded[4:8] == b"ftyp" and encoded[8:12] in _BRANDS_OF_HEIC and not is_avif(encoded)


def decode_avif(encoded: bytes, kind: PixelKind) -> Tensor:
    """Decode an AVIF; of an animation, the first frame."""
    if not AvifImagePlugin.SUPPORTED:
        raise ValueError("it is an AVIF, and the installed Pillow was built without AVIF; install Pillow 11.3 or later")
    place = encoded.find(b"av1C")
    if place >= 0 and len(encoded) > place + 6 and encoded[place + 6] & _HIGH_BIT_DEPTH:
        raise ValueError("it has more than 8 bits per channel, and AVIF is decoded to 8; store it as 16-bit PNG")
    return from_pillow(AvifImagePlugin.AvifImageFile(io.BytesIO(encoded)), kind)


def decode_heic(encoded: bytes, kind: PixelKind) -> Tensor:
    """Decode a HEIC; of several images, the primary one."""
    heif = needed("pillow_heif", "heic", "a HEIC image")
    image: ImageFile = heif.HeifImageFile(io.BytesIO(encoded))
    if image.info.get("bit_depth", 8) > 8:
        raise ValueError("it has more than 8 bits per channel, and HEIC is decoded to 8; store it as 16-bit PNG")
    return from_pillow(image, kind)
