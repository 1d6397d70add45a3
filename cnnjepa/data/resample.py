"""Crop, flip and antialiased resize of a whole batch as two batched matrix products, on any device.

Resampling is separable and linear, so a crop of image X is A_y · X · A_xᵀ with one small weight matrix per image and
axis. The kernels are Pillow's (cubic with a = −0.5, triangle), widened when shrinking. torchvision's antialias=True
computes the same.
"""

import math
from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from cnnjepa.data.crops import Crops
from cnnjepa.schemas.extent import Extent, height_width

Interpolation = Literal["bicubic", "bilinear"]

# Pixels per channel that a CPU processes at a time, so that weights and intermediate results stay in a core's cache: 32
# images of 64 px, the best of 16 to 256 measured (AMD EPYC, 1 MiB of L2). Images are independent, so the result does
# not depend on this value.
_CPU_PIXELS = 2**17

_SUPPORT: dict[Interpolation, float] = {"bicubic": 2.0, "bilinear": 1.0}


def _kernel(x: Tensor, interpolation: Interpolation) -> Tensor:
    x = x.abs()
    if interpolation == "bilinear":
        return (1 - x).clamp(min=0)
    a = -0.5
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _weights(
    start_B: Tensor, length_B: Tensor, source: int, size: int, interpolation: Interpolation, dtype: torch.dtype
) -> Tensor:
    """Return the weights [B, size, source]: row i computes output pixel i of the span [start, start + length) from the
    source pixels.

    The kernel is evaluated only at the few pixels that it can reach. Their number T is that of the widest possible
    crop, the whole image, so that it is known without reading the crops (which may be on a GPU).
    """
    start_B11, length_B11 = start_B.to(dtype)[:, None, None], length_B.to(dtype)[:, None, None]
    scale_B11 = length_B11 / size
    widen_B11 = scale_B11.clamp(min=1.0)
    out_1S1 = torch.arange(size, device=start_B.device, dtype=dtype)[None, :, None]
    centre_BS1 = start_B11 + (out_1S1 + 0.5) * scale_B11
    reach = math.ceil(_SUPPORT[interpolation] * max(1.0, source / size)) + 1
    tap_11T = torch.arange(-reach, reach + 1, device=start_B.device)[None, None, :]
    place_BST = centre_BS1.long() + tap_11T
    pixel_BST = place_BST.to(dtype)
    offset_BST = (pixel_BST + 0.5 - centre_BS1) / widen_B11
    weights_BST = _kernel(offset_BST, interpolation)
    # Pixels outside the crop contribute nothing: the crop is treated as an image of its own.
    inside_BST = (pixel_BST >= start_B11) & (pixel_BST < start_B11 + length_B11)
    weights_BST = weights_BST * inside_BST * (offset_BST.abs() < _SUPPORT[interpolation])
    # With space for positions beyond the image, every place of a row is written once.
    wide = torch.zeros(start_B.shape[0], size, source + 2 * reach + 1, dtype=dtype, device=start_B.device)
    weights = wide.scatter_(2, place_BST + reach, weights_BST)[..., reach : reach + source]
    return weights / weights.sum(-1, keepdim=True)


def crop_and_resize(
    images_BCHW: Tensor, crops: Crops, size: Extent, interpolation: Interpolation, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Resample images [B, K, H, W] of any type to crops of `size` and `dtype`, flipped and turned as `crops` say. The
    range of values is that of the images; of integers, it is clipped to what they can hold."""
    height, width = height_width(size)
    upright = _resampled(images_BCHW, crops, height, width, interpolation, dtype)
    if crops.turns is None:
        return upright
    # A rectangle that is turned by 90 degrees was the other rectangle before.
    lying = upright if height == width else _resampled(images_BCHW, crops, width, height, interpolation, dtype)
    return _turned(upright, lying, crops.turns)


def _resampled(
    images_BCHW: Tensor, crops: Crops, height: int, width: int, interpolation: Interpolation, dtype: torch.dtype
) -> Tensor:
    batch, channels, *source = images_BCHW.shape
    most = max(source[0] * source[1], height * width)
    at_once = max(1, _CPU_PIXELS // most) if images_BCHW.device.type == "cpu" else batch
    pixels = torch.empty(batch, channels, height, width, dtype=dtype, device=images_BCHW.device)
    for first in range(0, batch, at_once):
        few = slice(first, first + at_once)
        _crop_few(images_BCHW[few], crops.few(few), interpolation, pixels[few])
    return pixels


def _turned(upright_BCHW: Tensor, lying_BCWH: Tensor, turns_B: Tensor) -> Tensor:
    """Rotate each image by its number of quarter turns; by one or three, the image is taken from `lying`. All three
    rotations are computed, so that the choice is made on the device without waiting for it."""
    pixels_BCHW = upright_BCHW
    for turn in (1, 2, 3):
        chosen = (turns_B == turn)[:, None, None, None]
        whole = upright_BCHW if turn == 2 else lying_BCWH
        pixels_BCHW = torch.where(chosen, whole.rot90(turn, (2, 3)), pixels_BCHW)
    return pixels_BCHW


def _crop_few(images_BCHW: Tensor, crops: Crops, interpolation: Interpolation, out_BCHW: Tensor) -> None:
    batch, channels, height, width = images_BCHW.shape
    dtype = out_BCHW.dtype
    rows = _weights(crops.top, crops.height, height, out_BCHW.shape[2], interpolation, dtype)
    columns = _weights(crops.left, crops.width, width, out_BCHW.shape[3], interpolation, dtype)
    columns = torch.where(crops.flip[:, None, None], columns.flip(1), columns)
    if crops.upside_down is not None:
        rows = torch.where(crops.upside_down[:, None, None], rows.flip(1), rows)
    pixels = images_BCHW.to(dtype).view(batch, channels * height, width)
    across = torch.bmm(pixels, columns.transpose(1, 2)).view(batch, channels, height, -1)
    down = torch.matmul(rows[:, None], across)
    if images_BCHW.dtype.is_floating_point:
        out_BCHW.copy_(down)
    else:
        torch.clamp(down, 0, torch.iinfo(images_BCHW.dtype).max, out=out_BCHW)


def resized(image: Tensor, size: list[int], interpolation: Interpolation | InterpolationMode) -> Tensor:
    """Resize an image [..., K, H, W] of any type with torchvision, antialiased; same type. `size` is torchvision's:
    height and width, or the shorter side."""
    values = image.float() if image.dtype == torch.uint16 else image
    return rounded_like(transforms.resize(values, size, InterpolationMode(interpolation), antialias=True), image)


def rounded_like(values: Tensor, like: Tensor) -> Tensor:
    """Return values as the type of `like`, rounded and clipped if that is an integer."""
    if values.dtype == like.dtype:
        return values
    return values.round().clamp(0, torch.iinfo(like.dtype).max).to(like.dtype)
