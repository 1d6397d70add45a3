"""Strides of feature maps."""

import math
from collections.abc import Sequence

from torch import Tensor

# Strides at which dense prediction uses maps (as torchvision's and timm's feature pyramids do).
_FINEST = 4


def stride(shape: Sequence[int], image: Sequence[int]) -> int | None:
    """Return the stride of a map [B, C, h, w] of images [B, K, H, W], rounded to a power of 2; None if it differs
    between the sides, as for channels-last tensors."""
    ratios = [image[side] / shape[side] for side in (2, 3)]
    if min(ratios) < 1:
        return None
    powers = {round(math.log2(ratio)) for ratio in ratios}
    return 2 ** powers.pop() if len(powers) == 1 else None


def finest_first(maps: Sequence[Tensor], last: Tensor, images: Tensor) -> list[Tensor]:
    """Return the last of `maps` at each stride from 4 to that of `last`, which replaces the one at its own stride."""
    coarsest = stride(last.shape, images.shape)
    by_stride: dict[int, Tensor] = {}
    for one in maps:
        found = stride(one.shape, images.shape)
        if found is not None and found >= _FINEST and (coarsest is None or found < coarsest):
            by_stride[found] = one
    return [*(by_stride[found] for found in sorted(by_stride)), last]
