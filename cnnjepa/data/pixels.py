"""Conversion of decoded pixels to the channels and the type that a data set has. Nothing is lost: an image that does
not fit is refused, with the setting that keeps what would be lost.

Shapes: H and W pixels, K channels.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from cnnjepa.schemas.pixels import LARGEST, Depth, PixelKind

RGB8 = PixelKind()


class UnfitError(ValueError):
    """An image that would lose a channel or a bit in the form that a data set has."""

    def __init__(self, message: str, fits: PixelKind) -> None:
        super().__init__(message)
        self.fits = fits
        """The form that keeps what would be lost."""


_KEPT: tuple[Depth, ...] = ("uint8", "uint16", "float32")


def torch_type(kind: PixelKind) -> torch.dtype:
    """Return torch's type of the pixels."""
    found: torch.dtype = getattr(torch, kind.dtype)
    return found


def fitted(pixels_HWK: NDArray[np.generic], kind: PixelKind, alpha: bool = False) -> Tensor:
    """Return pixels [H, W, K] (or [H, W]) as a tensor [channels, H, W] of `kind`, channels-last in memory. `alpha`
    tells whether the last channel is opacity. Raises ValueError if that would lose a channel or a bit."""
    pixels = pixels_HWK if pixels_HWK.ndim == 3 else pixels_HWK[..., None]
    pixels = _with_channels(_of_type(pixels, kind), kind, alpha)
    if not pixels.flags.writeable:
        pixels = pixels.copy()
    return torch.from_numpy(pixels).permute(2, 0, 1)


def chosen(images_NCHW: Tensor, index_B: Tensor) -> Tensor:
    """Return the images at `index_B`. torch does not index uint16 on every device, so its bits are moved as int16."""
    if images_NCHW.dtype == torch.uint16:
        return images_NCHW.view(torch.int16)[index_B].view(torch.uint16)
    return images_NCHW[index_B]


def as_rgb(pixels_BCHW: Tensor) -> Tensor:
    """Return what a picture shows of uint8 pixels [B, K, H, W]: the first three channels, or the first one in grey,
    [B, 3, H, W]."""
    if pixels_BCHW.shape[1] >= 3:
        return pixels_BCHW[:, :3]
    return pixels_BCHW[:, :1].expand(-1, 3, -1, -1)


def shown(pixels_BCHW: Tensor) -> Tensor:
    """Return a picture of pixels of any type, uint8 [B, 3, H, W]. Other types than uint8 are stretched to their own
    smallest and largest value."""
    if pixels_BCHW.dtype != torch.uint8:
        values = pixels_BCHW.float()
        least, most = values.min(), values.max()
        pixels_BCHW = ((values - least) * (255 / (most - least).clamp(min=1e-12))).round().to(torch.uint8)
    return as_rgb(pixels_BCHW)


def from_pillow(image: Image.Image, kind: PixelKind) -> Tensor:
    """Return a Pillow image as a tensor [channels, H, W] of `kind`, turned upright according to its EXIF data. Palettes
    become colours, and CMYK becomes RGB unless four channels are wanted. Raises ValueError like `fitted`."""
    image = ImageOps.exif_transpose(image)
    if image.mode == "1":
        image = image.convert("L")
    if image.mode == "P" or "transparency" in image.info:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode not in ("L", "LA", "RGB", "RGBA", "CMYK", "I", "F", "I;16", "I;16B", "I;16L"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode == "CMYK" and kind.channels != 4:
        image = image.convert("RGB")
    return fitted(np.array(image), kind, alpha=image.mode in ("LA", "RGBA"))


def _of_type(pixels: NDArray[np.generic], kind: PixelKind) -> NDArray[np.generic]:
    wanted, found = np.dtype(kind.dtype), pixels.dtype
    if found == wanted and found.isnative and kind.dtype != "float32":
        return pixels
    if found.kind not in "uif":
        raise ValueError(f"its pixels are of type {found}; must be integers or floating-point numbers")
    if kind.dtype == "float32":
        values = pixels.astype(np.float32)
        if not np.isfinite(values).all():
            raise ValueError("it has pixels that are not finite (NaN or infinite); replace them")
        if not (values.astype(found) == pixels).all():
            raise ValueError(f"its {found} pixels do not fit into float32 without loss; store it as float32")
        return values
    if found.newbyteorder("=") == wanted:
        return pixels.astype(wanted)
    keeps: Depth = next((name for name in _KEPT if name == found.name), "float32")
    if keeps == "uint8":
        raise UnfitError(
            f"it has 8 bits per channel and data.dtype is {kind.dtype}; data.dtype=uint8 reads it, and data.dtype="
            "float32 reads images of several depths",
            kind._replace(dtype="uint8"),
        )
    bits = f"{8 * found.itemsize} bits per channel" if found.kind == "u" else f"pixels of type {found}"
    raise UnfitError(
        f"it has {bits} and data.dtype is {kind.dtype}; data.dtype={keeps} keeps them", kind._replace(dtype=keeps)
    )


def _with_channels(pixels: NDArray[np.generic], kind: PixelKind, alpha: bool) -> NDArray[np.generic]:
    found, wanted = pixels.shape[2], kind.channels
    if found == wanted:
        return pixels
    if alpha and found == 2 and wanted == 4:
        return pixels[..., [0, 0, 0, 1]]
    if alpha:
        _refuse_transparency(pixels[..., -1], found, kind)
        return _with_channels(pixels[..., :-1], kind, alpha=False)
    if found == 1 and wanted == 3:
        return pixels.repeat(3, axis=2)
    if found == 3 and wanted == 1 and (pixels[..., :1] == pixels).all():
        return pixels[..., :1]  # a grey image that was stored as RGB
    shown = f"it has {found} channel{'s' * (found > 1)} and data.channels is {wanted}"
    verb = "reads it" if found < wanted else "keeps them"
    raise UnfitError(f"{shown}; data.channels={found} {verb}", kind._replace(channels=found))


def _refuse_transparency(alpha: NDArray[np.generic], found: int, kind: PixelKind) -> None:
    """Raise an error for transparent pixels, which have no defined colour. A channel of opacity that is opaque
    everywhere holds nothing and is left out."""
    least, full = alpha.min(), LARGEST[kind.dtype]
    if least < full:
        raise UnfitError(
            f"it has transparent pixels (alpha down to {least} of {full:g}), and data.channels={kind.channels} has no "
            f"room for them; data.channels={found} keeps them, or put it on a background and store it without "
            "transparency",
            kind._replace(channels=found),
        )
