"""Sampling of context and target masks.

Shapes: B samples, G cells per side, N blocks. The quantities that determine the amount of work (the block size, the
choice in a mixed batch) are functions of (seed, step) alone. Positions are functions of (seed, step, global batch
index). Neither the number of processes nor accumulation therefore changes any mask.
"""

import torch
from torch import Tensor

from cnnjepa.masks.cells import Masks
from cnnjepa.masks.strategy import draw_own
from cnnjepa.randomness import key, uniform, uniforms
from cnnjepa.schemas.block_sizes import block_size_of, positions
from cnnjepa.schemas.extension import extension_of
from cnnjepa.schemas.masking import (
    BlockMasking,
    MaskingSection,
    MixedMasking,
    MultiBlockMasking,
    RandomMasking,
)

BlockStrategy = BlockMasking | MultiBlockMasking | MixedMasking

# Maximum number of redraws. Settings whose typical context is too small are refused when the config is loaded, so far
# fewer suffice. If the limit is reached, an error is raised.
_MOST_DRAWS = 1000


def sample_masks(masking: MaskingSection, grid: int, slots_B: Tensor, seed: int, step: int) -> Masks:
    """Draw masks for the samples at the global batch indices `slots_B` (int64 [B], on the target device) of step
    `step`.

    Source: docs/sources.md#mixed-masking, docs/sources.md#block-sizes. The schemas document the strategies.
    """
    if found := extension_of(masking):
        return draw_own(found, masking, grid, slots_B, seed, step)
    if isinstance(masking, MixedMasking):
        if uniform(seed, "mixed", step) < masking.multi_block_probability:
            return _block_masks(masking, grid, slots_B, seed, step)
        return _random_masks(masking.random, grid, slots_B, seed, step)
    if isinstance(masking, RandomMasking):
        return _random_masks(masking, grid, slots_B, seed, step)
    assert isinstance(masking, BlockStrategy), f"{masking.strategy} has no draw of its own"
    return _block_masks(masking, grid, slots_B, seed, step)


def _random_masks(masking: RandomMasking, grid: int, slots_B: Tensor, seed: int, step: int) -> Masks:
    draws_BK = uniforms(key(seed, "random_mask", step), slots_B, grid * grid)
    visible_BK = draws_BK.argsort(dim=1, stable=True)[:, : masking.kept(grid)]
    context_BK = torch.zeros_like(draws_BK, dtype=torch.bool).scatter_(1, visible_BK, True)
    context = context_BK.view(-1, grid, grid)
    return Masks(context, ~context)


def draw_block_size(masking: BlockStrategy, grid: int, seed: int, step: int) -> tuple[int, int]:
    """Draw (height, width) in cells, which all blocks of this step share; always more than min_keep cells."""
    draw = uniform(seed, "block_size", step, 0)
    return block_size_of(draw, grid, masking.scale, masking.aspect, masking.min_keep)


def _block_masks(masking: BlockStrategy, grid: int, slots_B: Tensor, seed: int, step: int) -> Masks:
    height, width = draw_block_size(masking, grid, seed, step)
    target, small_B = _draw_blocks(masking, grid, slots_B, key(seed, "block_position", step, 0), height, width)
    for attempt in range(1, _MOST_DRAWS):
        if not small_B.any():
            return Masks(~target, target)
        again, again_small_B = _draw_blocks(
            masking, grid, slots_B, key(seed, "block_position", step, attempt), height, width
        )
        target = torch.where(small_B[:, None, None], again, target)
        small_B = small_B & again_small_B
    raise RuntimeError(f"no context of more than {masking.min_keep} cells in {_MOST_DRAWS} draws ({masking})")


def _draw_blocks(
    masking: BlockStrategy, grid: int, slots_B: Tensor, draw_key: int, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """Return the union of the blocks [B, G, G], and whether it leaves too little context [B]."""
    faithful = masking.sampler == "faithful"
    draws_BN2 = uniforms(draw_key, slots_B, 2 * masking.blocks).view(-1, masking.blocks, 2)
    top_BN1 = (draws_BN2[..., :1] * positions(grid, height, faithful)).long()
    left_BN1 = (draws_BN2[..., 1:] * positions(grid, width, faithful)).long()
    line_G = torch.arange(grid, device=slots_B.device)
    rows_BNG = (line_G >= top_BN1) & (line_G < top_BN1 + height)
    columns_BNG = (line_G >= left_BN1) & (line_G < left_BN1 + width)
    target = torch.bmm(rows_BNG.float().transpose(1, 2), columns_BNG.float()) > 0
    small_B = (~target).flatten(1).sum(1) <= masking.min_keep
    return target, small_B
