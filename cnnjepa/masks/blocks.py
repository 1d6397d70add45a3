"""Block masks: the union of rectangles is the target, all other cells are context.

Shapes: B samples, R rows and C columns of cells, N blocks. The size of the blocks, which determines the amount of work,
is a function of (seed, step) alone. Positions are functions of (seed, step, global batch index).
"""

import torch
from torch import Tensor

from cnnjepa.masks.cells import Masks
from cnnjepa.masks.strategy import MaskingStrategy
from cnnjepa.randomness import key, uniform, uniforms
from cnnjepa.schemas.block_sizes import block_size_of, positions
from cnnjepa.schemas.extent import Extent, height_width
from cnnjepa.schemas.masking import BlockSection

# Maximum number of redraws. Settings whose typical context is too small are refused when the config is loaded, so far
# fewer suffice. If the limit is reached, an error is raised.
_MOST_DRAWS = 1000


class Blocks(MaskingStrategy):
    """One or more blocks of one size per sample. Draws that leave too little context are repeated."""

    config: BlockSection

    def draw(self, grid: Extent, indices_B: Tensor, seed: int, step: int) -> Masks:
        height, width = draw_block_size(self.config, grid, seed, step)
        target, small_B = self._blocks(grid, indices_B, key(seed, "block_position", step, 0), height, width)
        for attempt in range(1, _MOST_DRAWS):
            if not small_B.any():
                return Masks(~target, target)
            draw_key = key(seed, "block_position", step, attempt)
            again, again_small_B = self._blocks(grid, indices_B, draw_key, height, width)
            target = torch.where(small_B[:, None, None], again, target)
            small_B = small_B & again_small_B
        raise RuntimeError(
            f"no context of more than {self.config.min_keep} cells in {_MOST_DRAWS} draws ({self.config})"
        )

    def _blocks(self, grid: Extent, indices_B: Tensor, draw_key: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Return the union of the blocks [B, R, C], and whether it leaves too little context [B]."""
        masking = self.config
        faithful = masking.sampler == "faithful"
        rows, columns = height_width(grid)
        draws_BN2 = uniforms(draw_key, indices_B, 2 * masking.blocks).view(-1, masking.blocks, 2)
        top_BN1 = (draws_BN2[..., :1] * positions(rows, height, faithful)).long()
        left_BN1 = (draws_BN2[..., 1:] * positions(columns, width, faithful)).long()
        row_R, column_C = (torch.arange(side, device=indices_B.device) for side in (rows, columns))
        inside_BNR = (row_R >= top_BN1) & (row_R < top_BN1 + height)
        inside_BNC = (column_C >= left_BN1) & (column_C < left_BN1 + width)
        target = torch.bmm(inside_BNR.float().transpose(1, 2), inside_BNC.float()) > 0
        small_B = (~target).flatten(1).sum(1) <= masking.min_keep
        return target, small_B


def draw_block_size(masking: BlockSection, grid: Extent, seed: int, step: int) -> tuple[int, int]:
    """Draw (height, width) in cells, which all blocks of this step share; always more than min_keep cells."""
    draw = uniform(seed, "block_size", step, 0)
    return block_size_of(draw, grid, masking.scale, masking.aspect, masking.min_keep)
