"""TIFF files. Pillow reads those with one sample per pixel, and 8-bit colour; the optional package tifffile reads all
others. Pillow itself would silently keep 8 of 16 bits in colour, and drop channels beyond the colours."""

import io

import numpy as np
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor

from cnnjepa.data.orientation import turned
from cnnjepa.data.pixels import fitted, from_pillow
from cnnjepa.optional import needed
from cnnjepa.schemas.pixels import PixelKind

_SUBFILE, _BITS, _SAMPLES, _EXTRA, _FORMAT = 254, 258, 277, 338, 339
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_REDUCED = 1  # in the tag of a page: a smaller copy of another page
_STRAIGHT_ALPHA = (2,)


def decode_tiff(encoded: bytes, kind: PixelKind) -> Tensor:
    """Decode a TIFF of one page; smaller copies of it (overviews) are passed over."""
    try:
        image: TiffImageFile | None = TiffImageFile(io.BytesIO(encoded))
    except (SyntaxError, OSError):  # a kind of pixel that Pillow does not know
        image = None
    if image is not None:
        _refuse_pages(sum(not _tag(image, page, _SUBFILE, 0) & _REDUCED for page in range(image.n_frames)))
        image.seek(0)
        if _pillow_keeps_all(image):
            return from_pillow(image, kind)
    return _by_tifffile(encoded, image, kind)


def _tag(image: TiffImageFile, page: int, tag: int, default: int) -> int:
    image.seek(page)
    return int(image.tag_v2.get(tag, default))


def _pillow_keeps_all(image: TiffImageFile) -> bool:
    tags = image.tag_v2
    bits, samples = tuple(tags.get(_BITS, (1,))), tags.get(_SAMPLES, 1)
    extra = tuple(tags.get(_EXTRA, ()))
    if samples == 1:
        return bits[0] < 32 or tuple(tags.get(_FORMAT, (_UNSIGNED,))) != (_UNSIGNED,)
    return set(bits) <= {8} and extra in ((), _STRAIGHT_ALPHA) and len(image.getbands()) == samples


def _by_tifffile(encoded: bytes, image: TiffImageFile | None, kind: PixelKind) -> Tensor:
    tifffile = needed("tifffile", "tiff", "a TIFF of this kind (several channels, more than 8 bits in colour)")
    with tifffile.TiffFile(io.BytesIO(encoded)) as file:
        pages = [page for page in file.pages if not int(page.subfiletype) & _REDUCED]
        _refuse_pages(len(pages))
        pixels, axes = np.asarray(pages[0].asarray()), pages[0].axes
        alpha = 2 in [int(sample) for sample in pages[0].extrasamples][-1:]
    if axes not in ("YX", "YXS", "SYX"):
        raise ValueError(f"it has the axes {axes}; an image has rows and columns, and channels before or after them")
    found = fitted(np.moveaxis(pixels, 0, 2) if axes == "SYX" else pixels, kind, alpha)
    return turned(found, image) if image is not None else found


def _refuse_pages(count: int) -> None:
    if count != 1:
        raise ValueError(f"it has {count} pages, and an image is one page; store each as a file, or as channels of one")
