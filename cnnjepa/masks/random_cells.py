"""Random masks: single cells, drawn uniformly."""

import torch
from torch import Tensor

from cnnjepa.masks.cells import Masks
from cnnjepa.masks.strategy import MaskingStrategy
from cnnjepa.randomness import key, uniforms
from cnnjepa.schemas.extent import Extent, area, height_width
from cnnjepa.schemas.masking import RandomMasking


class RandomCells(MaskingStrategy):
    """A fixed number of cells is visible, every set of this size with the same probability."""

    config: RandomMasking

    def draw(self, grid: Extent, indices_B: Tensor, seed: int, step: int) -> Masks:
        draws_BK = uniforms(key(seed, "random_mask", step), indices_B, area(grid))
        visible_BK = draws_BK.argsort(dim=1, stable=True)[:, : self.config.kept(grid)]
        context_BK = torch.zeros_like(draws_BK, dtype=torch.bool).scatter_(1, visible_BK, True)
        context = context_BK.view(-1, *height_width(grid))
        return Masks(context, ~context)
