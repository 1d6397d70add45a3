"""Position of each training crop: random resized crop and flip as a function of (seed, epoch, image, view).

The distribution is that of torchvision's RandomResizedCrop, also for crops that are resized to a rectangle. Area and
log aspect are drawn up to ten times until the crop fits, then the position is drawn uniformly. If no draw fits, the
crop is the largest central one within the aspect limits.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from cnnjepa.randomness import key, uniforms
from cnnjepa.schemas.augmentation import AugmentationSection
from cnnjepa.schemas.extent import Extent

_ATTEMPTS = 10  # torchvision's value


class Crops(NamedTuple):
    """One crop per image, in whole pixels; all tensors are [B]."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    flip: Tensor
    """Boolean: mirrored left to right."""
    upside_down: Tensor | None = None
    """Boolean: mirrored top to bottom. None if no image can be."""
    turns: Tensor | None = None
    """int64, 0 to 3: number of rotations by 90 degrees, counterclockwise, after both flips. None if no image can be
    turned."""

    def few(self, part: slice) -> "Crops":
        """Return the crops of some images."""
        return Crops(*(None if side is None else side[part] for side in self))  # type: ignore[arg-type]


def draw_crops(
    config: AugmentationSection,
    index_B: Tensor,
    height_B: Tensor,
    width_B: Tensor,
    seed: int,
    epoch: int,
    view: int = 0,
    size: Extent = 1,
) -> Crops:
    """Draw the crops of the images `index_B` (int64 [B]) of size `height_B` x `width_B` (int64 [B], pixels) in `epoch`.
    Each `view` of an image has its own crop. `size` is the size to which crops are resized: if it is not square, the
    crop of an image that turns by 90 or 270 degrees is drawn on the turned image, so that all crops are stretched
    alike."""
    upside_down = turns = None
    if config.vertical_flip or config.quarter_turns:
        more = uniforms(key(seed, "turn", epoch, view), index_B, 3)
        upside_down = more[:, 0] < config.vertical_flip
        turns = (more[:, 1] < config.quarter_turns) * (1 + (3 * more[:, 2]).long())
    lying = None if turns is None or isinstance(size, int) else turns % 2 == 1
    height_B, width_B = _exchanged(lying, height_B, width_B)
    draws = uniforms(key(seed, "crop", epoch, *([view] if view else [])), index_B, 2 * _ATTEMPTS + 3)
    area_BA, aspect_BA = draws[:, :_ATTEMPTS], draws[:, _ATTEMPTS : 2 * _ATTEMPTS]
    (least, most), (narrow, wide) = config.crop_scale, config.crop_ratio
    area_BA = (height_B * width_B)[:, None] * (least + area_BA * (most - least))
    aspect_BA = torch.exp(math.log(narrow) + aspect_BA * (math.log(wide) - math.log(narrow)))
    width_BA = (area_BA * aspect_BA).sqrt().round().long()
    height_BA = (area_BA / aspect_BA).sqrt().round().long()
    fits_BA = (width_BA > 0) & (width_BA <= width_B[:, None]) & (height_BA > 0) & (height_BA <= height_B[:, None])

    first_B1 = fits_BA.float().argmax(1, keepdim=True)
    fits_B = fits_BA.any(1)
    fall_height_B, fall_width_B = _central(height_B, width_B, narrow, wide)
    crop_height = torch.where(fits_B, height_BA.gather(1, first_B1)[:, 0], fall_height_B)
    crop_width = torch.where(fits_B, width_BA.gather(1, first_B1)[:, 0], fall_width_B)
    free_y, free_x = height_B - crop_height, width_B - crop_width
    top = torch.where(fits_B, (draws[:, -3] * (free_y + 1)).long(), free_y // 2)
    left = torch.where(fits_B, (draws[:, -2] * (free_x + 1)).long(), free_x // 2)
    top, left = _exchanged(lying, top, left)
    crop_height, crop_width = _exchanged(lying, crop_height, crop_width)
    return Crops(top, left, crop_height, crop_width, draws[:, -1] < config.flip, upside_down, turns)


def _exchanged(lying_B: Tensor | None, first_B: Tensor, second_B: Tensor) -> tuple[Tensor, Tensor]:
    """Exchange two values of the images that lie on their side."""
    if lying_B is None:
        return first_B, second_B
    return torch.where(lying_B, second_B, first_B), torch.where(lying_B, first_B, second_B)


def _central(height_B: Tensor, width_B: Tensor, narrow: float, wide: float) -> tuple[Tensor, Tensor]:
    """Return the size of the largest crop within the aspect limits."""
    aspect_B = width_B.double() / height_B
    height = torch.where(aspect_B < narrow, (width_B / narrow).round().long(), height_B)
    width = torch.where(aspect_B > wide, (height_B * wide).round().long(), width_B)
    return height, width
