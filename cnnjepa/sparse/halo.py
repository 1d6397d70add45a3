"""A cell with the rim of its neighbours, so that a kernel wider than one pixel can be applied to it.

Shapes: n visible cells, C channels, p pixels a side, `before` and `after` pixels of rim.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cnnjepa.sparse.patch_grid import PatchGrid


class _Strip(NamedTuple):
    """The part of a rim that comes from one neighbour: where it lies in the padded cell and in that neighbour."""

    down: int
    right: int
    into: tuple[slice, slice]
    out_of: tuple[slice, slice]


def _spans(p: int, before: int, after: int) -> Iterator[tuple[int, slice, slice]]:
    """Along one axis: (cells away, slice in the padded cell, slice in the neighbour)."""
    for away in range(-before // p, -(-after // p) + 1):
        start, stop = away * p, (away + 1) * p  # the neighbour's pixels, counted from this cell's first
        low, high = max(start, -before), min(stop, p + after)
        yield away, slice(low + before, high + before), slice(low - start, high - start)


def _strips(p: int, before: int, after: int) -> list[_Strip]:
    return [
        _Strip(down, right, (into_y, into_x), (from_y, from_x))
        for down, into_y, from_y in _spans(p, before, after)
        for right, into_x, from_x in _spans(p, before, after)
        if (down, right) != (0, 0)
    ]


class _Halo(torch.autograd.Function):
    """Gathers rims; the backward gathers too (no scatter, no atomics), because neighbourhood is mutual: what
    cell i took from its right neighbour j is what j gives back from its left neighbour i."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: PatchGrid, before: int, after: int, outside: float) -> Tensor:
        n, c, p, _ = x.shape
        ctx.grid, ctx.before, ctx.after, ctx.p = grid, before, after, p
        side = p + before + after
        padded = _empty((n, c, side, side), x)
        padded[:, :, before : before + p, before : before + p] = x
        for strip in _strips(p, before, after):
            edge = _with_rows(x[:, :, strip.out_of[0], strip.out_of[1]], outside)
            padded[:, :, strip.into[0], strip.into[1]] = edge.index_select(0, grid.neighbour(strip.down, strip.right))
        return padded

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        p, before = ctx.p, ctx.before
        grad_x = grad[:, :, before : before + p, before : before + p].clone(memory_format=torch.channels_last)
        for strip in _strips(p, before, ctx.after):
            edge = _with_rows(grad[:, :, strip.into[0], strip.into[1]], 0.0)
            back = edge.index_select(0, ctx.grid.neighbour(-strip.down, -strip.right))
            grad_x[:, :, strip.out_of[0], strip.out_of[1]] += back
        return grad_x, None, None, None, None


def _empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Channels-last, so that the convolution that follows needs no copy."""
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _with_rows(edge: Tensor, outside: float) -> Tensor:
    """`edge` [n, …] and two rows more: n stands for a masked neighbour (zeros), n + 1 for the image's outside."""
    n = edge.shape[0]
    rows = _empty((n + 2, *edge.shape[1:]), edge)
    rows[:n] = edge
    rows[n] = 0.0
    rows[n + 1] = outside
    return rows


def with_halo(x: Tensor, grid: PatchGrid, before: int, after: int, outside: float = 0.0) -> Tensor:
    """Packed cells [n, C, p, p] → [n, C, before+p+after, before+p+after].

    The rim holds the neighbours' pixels, 0 where a neighbour is masked and `outside` beyond the image's border.
    Differentiable once.
    """
    if before == 0 and after == 0:
        return x
    padded: Tensor = _Halo.apply(x, grid, before, after, outside)
    return padded
