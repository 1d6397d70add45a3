"""Orientation of photographs: cameras store an image as the sensor saw it, and how it must be turned in its EXIF data.

The orientation is read by Pillow, and applied like Pillow's `exif_transpose`.
"""

import io
from collections.abc import Callable

from PIL.ExifTags import Base
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.WebPImagePlugin import WebPImageFile
from torch import Tensor

_TURNS: dict[int, Callable[[Tensor], Tensor]] = {
    2: lambda image: image.flip(2),
    3: lambda image: image.flip(1, 2),
    4: lambda image: image.flip(1),
    5: lambda image: image.transpose(1, 2),
    6: lambda image: image.rot90(-1, (1, 2)),
    7: lambda image: image.transpose(1, 2).flip(1, 2),
    8: lambda image: image.rot90(1, (1, 2)),
}


def upright(image_CHW: Tensor, encoded: bytes) -> Tensor:
    """Return the pixels [C, H, W] of a JPEG or WebP, turned upright."""
    if not any(mark in encoded for mark in (b"Exif", b"EXIF", b"tiff:Orientation")):
        return image_CHW
    kind: type[ImageFile] = WebPImageFile if encoded.startswith(b"RIFF") else JpegImageFile
    try:
        image = kind(io.BytesIO(encoded))
    except Exception:  # the pixels could be decoded, so only the metadata can be damaged
        return image_CHW
    return turned(image_CHW, image)


def turned(image_CHW: Tensor, image: ImageFile) -> Tensor:
    """Return pixels [C, H, W] as the metadata of a Pillow image say. Damaged metadata leave them as they are stored."""
    try:
        orientation = image.getexif().get(Base.Orientation, 1)
    except Exception:  # Pillow raises a dozen kinds for damaged metadata
        return image_CHW
    turn = _TURNS.get(orientation)
    return turn(image_CHW) if turn else image_CHW
