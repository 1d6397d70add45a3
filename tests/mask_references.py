"""Masking strategies of tests, and brute-force references without a closed form.

Shapes: B samples, G cells per side, N blocks.
"""

import itertools

import numpy as np

from cnnjepa.masks import Masks
from cnnjepa.schemas import BlockMasking, MaskingConfig, MixedMasking, MultiBlockMasking, RandomMasking

GRID = 7


SCALE, ASPECT = (0.15, 0.2), (0.75, 1.5)


FAITHFUL = MultiBlockMasking(sampler="faithful")


UNBIASED = MultiBlockMasking(sampler="unbiased")


EVERY_STRATEGY: list[MaskingConfig] = [
    RandomMasking(),
    BlockMasking(),
    BlockMasking(sampler="unbiased"),
    FAITHFUL,
    UNBIASED,
    MixedMasking(),
]


def placements(grid: int, height: int, width: int, faithful: bool) -> np.ndarray:
    """Every block that can be drawn, equally likely, as cells in the bits of a uint64."""
    rows = grid - height if faithful else grid - height + 1
    columns = grid - width if faithful else grid - width + 1
    blocks = []
    for top, left in itertools.product(range(rows), range(columns)):
        blocks.append(sum(1 << (r * grid + c) for r in range(top, top + height) for c in range(left, left + width)))
    return np.array(blocks, dtype=np.uint64)


def unions(grid: int, height: int, width: int, faithful: bool, num_blocks: int = 4) -> np.ndarray:
    """The union of every ordered choice of `num_blocks` blocks: all outcomes, equally likely."""
    blocks = placements(grid, height, width, faithful)
    outcomes = blocks
    for _ in range(num_blocks - 1):
        outcomes = (outcomes[:, None] | blocks[None, :]).reshape(-1)
    return outcomes


def mean_targets(outcomes: np.ndarray) -> float:
    return float(np.bitwise_count(outcomes).mean())


def rates(outcomes: np.ndarray, grid: int) -> np.ndarray:
    """How often each cell is a target, [G, G]."""
    bits = [((outcomes >> np.uint64(cell)) & np.uint64(1)).mean() for cell in range(grid * grid)]
    return np.array(bits).reshape(grid, grid)


SIZES = {(3, 3): 0.62, (2, 3): 0.19, (4, 3): 0.11, (4, 2): 0.08}  # docs/sources.md#block-sizes, in hundredths


def is_random(masks: Masks) -> bool:
    """True if every sample shows exactly 20 cells; block batches of 8 samples practically never do."""
    return bool((masks.context.sum((1, 2)) == 20).all())
