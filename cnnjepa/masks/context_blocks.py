"""I-JEPA's masks (arXiv 2301.08243): one context block, from which the cells of several target blocks are removed.

Shapes: B samples, R rows and C columns of cells, N target blocks, T cells per target block, K context cells kept per
sample.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from cnnjepa.randomness import key, uniform, uniforms
from cnnjepa.schemas import IJEPAMasking
from cnnjepa.schemas.block_sizes import block_size_of, positions
from cnnjepa.schemas.extent import Extent, height_width

_MOST_DRAWS = 1000  # settings that leave too little context are refused when the config is loaded


class BlockIndices(NamedTuple):
    """Cell numbers in reading order; int64 on the CPU."""

    context: Tensor
    """[B, K]. K is the size of the smallest context in the batch. Larger ones are cut to K in reading order, as in
    I-JEPA's code, so that the batch is one tensor."""
    targets: Tensor
    """[B, N, T]. Blocks may overlap."""


def draw_context_blocks(masking: IJEPAMasking, grid: Extent, indices_B: Tensor, seed: int, step: int) -> BlockIndices:
    """Draw the cells for the samples at the global batch indices `indices_B` of step `step`. Block sizes are a function
    of (seed, step). Positions also depend on the index."""
    draw = uniform(seed, "ijepa_target_size", step)
    target = block_size_of(draw, grid, masking.scale, masking.aspect, masking.min_keep)
    draw = uniform(seed, "ijepa_context_size", step)
    context = block_size_of(draw, grid, masking.context_scale, (1.0, 1.0), masking.min_keep)
    indices = indices_B.cpu()
    targets, kept = _draw(masking, grid, indices, key(seed, "ijepa_position", step, 0), target, context)
    for attempt in range(1, _MOST_DRAWS):
        small = kept.flatten(1).sum(1) <= masking.min_keep
        if not small.any():
            return _indices(targets, kept, target)
        again = _draw(masking, grid, indices, key(seed, "ijepa_position", step, attempt), target, context)
        targets = torch.where(small[:, None, None, None], again[0], targets)
        kept = torch.where(small[:, None, None], again[1], kept)
    raise RuntimeError(f"no context of more than {masking.min_keep} cells in {_MOST_DRAWS} draws ({masking})")


def _draw(
    masking: IJEPAMasking,
    grid: Extent,
    indices: Tensor,
    draw_key: int,
    target: tuple[int, int],
    context: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Draw target blocks [B, N, R, C] and context [B, R, C], both boolean."""
    draws = uniforms(draw_key, indices, 2 * (masking.blocks + 1)).view(-1, masking.blocks + 1, 2)
    faithful = masking.sampler == "faithful"
    targets = _rectangles(draws[:, 1:], grid, target, faithful)
    whole = _rectangles(draws[:, :1], grid, context, faithful)[:, 0]
    return targets, whole & ~targets.any(1)


def _rectangles(draws_BN2: Tensor, grid: Extent, size: tuple[int, int], faithful: bool) -> Tensor:
    inside = []
    for axis, length in enumerate(height_width(grid)):
        line = torch.arange(length)
        first = (draws_BN2[..., axis, None] * positions(length, size[axis], faithful)).long()
        inside.append((line >= first) & (line < first + size[axis]))
    return inside[0][..., :, None] & inside[1][..., None, :]


def _indices(targets: Tensor, kept: Tensor, size: tuple[int, int]) -> BlockIndices:
    cells = torch.arange(kept[0].numel())
    flat = kept.flatten(1)
    least = int(flat.sum(1).min())
    context = flat.long().mul(len(cells)).sub(cells).argsort(dim=1, descending=True, stable=True)[:, :least]
    places = targets.flatten(2).nonzero()[:, 2].view(*targets.shape[:2], size[0] * size[1])
    return BlockIndices(context, places)
