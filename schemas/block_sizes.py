"""The block sizes that a block strategy draws on a grid, and their exact probabilities in closed form.

This module is pure arithmetic, used by the checks at load time and by the sampler. Source: docs/sources.md#block-sizes:
one uniform draw u determines both the scale s = s0 + u(s1 - s0) and the aspect a = a0 + u(a1 - a0); then area =
int(cells·s), h = round(√(area·a)), w = round(√(area/a)), limited to the grid's rows and columns.
"""

import math
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import NamedTuple

from cnnjepa.schemas.extent import Extent, area, as_text, height_width

Range = tuple[float, float]


@dataclass(frozen=True)
class BlockSize:
    """A block of `height` x `width` cells, drawn with `probability`."""

    height: int
    width: int
    probability: float


def block_size_at(u: float, grid: Extent, scale: Range, aspect: Range) -> tuple[int, int]:
    """Return (height, width) in cells for the uniform draw `u` in [0, 1)."""
    s = scale[0] + u * (scale[1] - scale[0])
    a = aspect[0] + u * (aspect[1] - aspect[0])
    cells = int(area(grid) * s)
    # A block spans neither the rows nor the columns, so that it has at least one possible position.
    tallest, widest = (max(side - 1, 1) for side in height_width(grid))
    return min(round(math.sqrt(cells * a)), tallest), min(round(math.sqrt(cells / a)), widest)


def _breakpoints(grid: Extent, scale: Range, aspect: Range) -> list[float]:
    """Return every u in (0, 1) at which area, height or width can change."""
    points = {0.0, 1.0}

    def add(value: float, span: Range) -> None:
        if span[1] > span[0]:
            points.add((value - span[0]) / (span[1] - span[0]))

    whole = area(grid)
    for cells in range(int(whole * scale[0]), int(whole * scale[1]) + 1):
        add(cells / whole, scale)
        for m in range(max(height_width(grid)) + 1):
            add((m + 0.5) ** 2 / max(cells, 1), aspect)  # √(cells·a) = m + ½
            add(cells / (m + 0.5) ** 2, aspect)  # √(cells/a) = m + ½
    return sorted(p for p in points if 0 <= p <= 1)


class _Piece(NamedTuple):
    """An interval of the uniform draw in which the block size is constant."""

    low: float
    high: float
    height: int
    width: int


@cache
def _pieces(grid: Extent, scale: Range, aspect: Range, min_keep: int) -> tuple[_Piece, ...]:
    """Return the intervals of [0, 1) whose blocks have more than `min_keep` cells, in order."""
    pieces = []
    for low, high in pairwise(_breakpoints(grid, scale, aspect)):
        height, width = block_size_at((low + high) / 2, grid, scale, aspect)
        if high > low and height * width > min_keep:
            pieces.append(_Piece(low, high, height, width))
    return tuple(pieces)


def block_size_of(draw: float, grid: Extent, scale: Range, aspect: Range, min_keep: int) -> tuple[int, int]:
    """Return (height, width) in cells for a `draw` in [0, 1). The distribution is that of the authors' u, redrawn until
    the block has more than `min_keep` cells. A single draw suffices because it is mapped uniformly to the intervals of
    u with such blocks. Raises ValueError if there is none."""
    pieces = _pieces(grid, scale, aspect, min_keep)
    if not pieces:
        raise ValueError(f"no block of scale {list(scale)} on a {as_text(grid)} grid has more than {min_keep} cells")
    left = draw * sum(piece.high - piece.low for piece in pieces)
    for piece in pieces:
        if left < piece.high - piece.low:
            break
        left -= piece.high - piece.low
    return piece.height, piece.width


def block_sizes(grid: Extent, scale: Range, aspect: Range, min_keep: int) -> list[BlockSize]:
    """Return the sizes drawn on a grid with their exact probabilities, largest probability first.

    Sizes of at most `min_keep` cells are drawn again, so their probability is divided among the others. The list is
    empty if no size exceeds `min_keep`.
    """
    shares: dict[tuple[int, int], float] = {}
    for low, high, height, width in _pieces(grid, scale, aspect, min_keep):
        shares[height, width] = shares.get((height, width), 0.0) + high - low
    total = sum(shares.values())
    sizes = [BlockSize(h, w, share / total) for (h, w), share in shares.items()]
    return sorted(sizes, key=lambda size: -size.probability)


def positions(line: int, side: int, faithful: bool) -> int:
    """Return the number of first rows (or columns), starting at 0, from which the position of a block of `side` cells
    is drawn, for a grid of `line` rows (or columns).

    `faithful` leaves the upper bound out, as the released code does, so that the last row and column are never covered
    (docs/sources.md#block-positions).
    """
    return max(line - side, 1) if faithful else line - side + 1


def cover_rates(line: int, side: int, faithful: bool) -> list[float]:
    """Return the probability that a block of `side` cells covers row (or column) i, for each of `line` rows (or
    columns)."""
    starts = positions(line, side, faithful)
    return [sum(first <= i < first + side for first in range(starts)) / starts for i in range(line)]


def target_rates(grid: Extent, size: BlockSize, num_blocks: int, faithful: bool) -> list[list[float]]:
    """Return the exact probability that each cell [row][column] is a target, given the size, before any redraw."""
    height, width = height_width(grid)
    rows = cover_rates(height, size.height, faithful)
    columns = cover_rates(width, size.width, faithful)
    return [[1 - (1 - r * c) ** num_blocks for c in columns] for r in rows]


def expected_targets(grid: Extent, sizes: list[BlockSize], num_blocks: int, faithful: bool) -> float:
    """Return the exact expected number of target cells per sample, before any redraw for a small context."""
    return sum(size.probability * sum(map(sum, target_rates(grid, size, num_blocks, faithful))) for size in sizes)
