"""Random erasing (arXiv 1708.04896)."""

import torch
from torch import Tensor

from cnnjepa.data.augmentation import Augmentation, ImageDraws
from cnnjepa.schemas.augmentation import RandomErasingConfig

_ATTEMPTS = 10  # draws of a rectangle that fits; almost always the first does


class RandomErasing(Augmentation):
    """In some of the images, sets a rectangle to one value. Area and aspect are drawn until the rectangle fits, at most
    ten times; its position is then uniform among those inside the image."""

    config: RandomErasingConfig

    def apply(self, pixels_BCHW: Tensor, draws: ImageDraws) -> Tensor:
        height, width = pixels_BCHW.shape[2:]
        drawn = draws.uniforms("erase", 2 * _ATTEMPTS + 3)
        (least, most), (narrow, wide) = self.config.erase_area, self.config.erase_aspect
        area_BA = height * width * (least + drawn[:, :_ATTEMPTS] * (most - least))
        aspect_BA = narrow + drawn[:, _ATTEMPTS : 2 * _ATTEMPTS] * (wide - narrow)
        height_BA, width_BA = (area_BA * aspect_BA).sqrt().round(), (area_BA / aspect_BA).sqrt().round()
        fits_BA = (height_BA >= 1) & (height_BA <= height) & (width_BA >= 1) & (width_BA <= width)
        first_B1 = fits_BA.float().argmax(1, keepdim=True)
        tall_B1, broad_B1 = height_BA.gather(1, first_B1), width_BA.gather(1, first_B1)
        top_B1 = (drawn[:, -3:-2] * (height - tall_B1 + 1)).floor()
        left_B1 = (drawn[:, -2:-1] * (width - broad_B1 + 1)).floor()
        row, column = (torch.arange(side, device=pixels_BCHW.device) for side in (height, width))
        rows_BH = (row >= top_B1) & (row < top_B1 + tall_B1)
        columns_BW = (column >= left_B1) & (column < left_B1 + broad_B1)
        erased_B1 = fits_BA.any(1, keepdim=True) & (drawn[:, -1:] < self.config.erase_probability)
        inside = (rows_BH & erased_B1)[:, None, :, None] & columns_BW[:, None, None, :]
        return pixels_BCHW.masked_fill(inside, self.config.erase_fill)
