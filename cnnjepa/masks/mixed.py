"""Mixed masks: each batch is multi-block or random. Source: docs/sources.md#mixed-masking."""

from torch import Tensor

from cnnjepa.masks.blocks import Blocks
from cnnjepa.masks.cells import Masks
from cnnjepa.masks.random_cells import RandomCells
from cnnjepa.masks.strategy import MaskingStrategy
from cnnjepa.randomness import uniform
from cnnjepa.schemas.extent import Extent
from cnnjepa.schemas.masking import MixedMasking


class Mixed(MaskingStrategy):
    """The choice is a function of (seed, step), so that all processes make the same one."""

    config: MixedMasking

    def draw(self, grid: Extent, indices_B: Tensor, seed: int, step: int) -> Masks:
        if uniform(seed, "mixed", step) < self.config.multi_block_probability:
            return Blocks(self.config).draw(grid, indices_B, seed, step)
        return RandomCells(self.config.random).draw(grid, indices_B, seed, step)
