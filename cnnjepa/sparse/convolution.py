"""kxk convolutions of packed cells, with gradients computed by gathering.

Shapes: n visible cells, C input and O output channels, p pixels per side of an input cell and q = p / stride of an
output cell, k the side of the kernel. Only the unpadded input is kept for the backward pass; the previous layer keeps
it anyway.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from cnnjepa.sparse.geometry import Geometry
from cnnjepa.sparse.halo import PixelIndex, as_cells, as_rows, padded_cells, rounded_halo_index, window_index
from cnnjepa.sparse.patch_grid import PatchGrid
from cnnjepa.sparse.products import as_matrix, cast
from cnnjepa.tensor_ops.matmul import linear


class _Windows(torch.autograd.Function):
    """Convolution as one matrix product of whole windows [n·q·q, k·k·C]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, index: PixelIndex) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.index = index
        weight, bias = cast(x.dtype, weight, bias)
        return as_cells(linear(_windows(x, index), as_matrix(weight), bias), index.places.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        grad_RO, (c, p), k = as_rows(grad), x.shape[1:3], weight.shape[2]
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            by_window = linear(grad_RO, as_matrix(weight.to(x.dtype)).t())
            grad_x = as_cells(ctx.index.sum_back(by_window.view(-1, c)), p)
        if ctx.needs_input_grad[1]:
            flat = linear(grad_RO.t(), _windows(x, ctx.index).t())
            grad_weight = flat.view(-1, k, k, c).permute(0, 3, 1, 2).to(weight.dtype)
        grad_bias = grad_RO.sum(0).to(weight.dtype) if ctx.needs_input_grad[2] else None
        return grad_x, grad_weight, grad_bias, None


def _windows(x: Tensor, index: PixelIndex) -> Tensor:
    """Gather the windows [n·q·q, k·k·C]."""
    n, q, _, k, _ = index.places.shape
    return index.gather(x).view(n * q * q, k * k * x.shape[1])


class _Padded(torch.autograd.Function):
    """Unpadded convolution of cells with their rims. The library gets `grid.rounded` cells, so that it meets few
    different shapes."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, grid: PatchGrid, geometry: Geometry
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.grid, ctx.geometry = grid, geometry
        padded = padded_cells(x, rounded_halo_index(grid, x.shape[2], *geometry.rim))
        return F.conv2d(padded, *cast(x.dtype, weight, bias), geometry.stride, 0, 1, geometry.groups)[: grid.n]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        x, parameter = ctx.saved_tensors
        weight = parameter.to(x.dtype)
        geometry: Geometry = ctx.geometry
        for_x, for_weight, for_bias = ctx.needs_input_grad[:3]
        index = rounded_halo_index(ctx.grid, x.shape[2], *geometry.rim)
        grad_x = None
        if for_x and geometry.stride == 1:
            # Computed as a convolution of the gradient with its own rims. The gradient of a padded cell has more pixels
            # than the cell, 100 instead of 64 at p = 8.
            around = rounded_halo_index(ctx.grid, x.shape[2], *reversed(geometry.rim))
            turned = _turned(weight, geometry.groups)
            grad_x = F.conv2d(padded_cells(grad, around), turned, None, 1, 0, 1, geometry.groups)[: ctx.grid.n]
            for_x = False
        padded = padded_cells(x, index)
        grad_padded, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
            _lengthened(grad, padded.shape[0]), padded, weight, [weight.shape[0]], [geometry.stride] * 2, [0, 0],
            [1, 1], False, [0, 0], geometry.groups, [for_x, for_weight, for_bias],
        )  # fmt: skip
        if for_x:
            grad_x = as_cells(index.sum_back(as_rows(grad_padded)), x.shape[2])
        if grad_weight is not None:
            grad_weight = grad_weight.to(parameter.dtype)
        if grad_bias is not None:
            grad_bias = grad_bias.to(parameter.dtype)
        return grad_x, grad_weight, grad_bias, None, None


def _lengthened(cells: Tensor, count: int) -> Tensor:
    """Return `count` cells; those that are added are zero."""
    if cells.shape[0] == count:
        return cells
    longer = cells.new_empty(count, *cells.shape[2:], cells.shape[1]).permute(0, 3, 1, 2)
    longer[: cells.shape[0]] = cells
    longer[cells.shape[0] :] = 0.0
    return longer


def _turned(weight: Tensor, groups: int) -> Tensor:
    """Return the weight of the transposed convolution: [O, C/g, k, k] → [C, O/g, k, k], rotated by 180°."""
    grouped = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    return grouped.flip(2, 3).contiguous(memory_format=torch.channels_last)


def by_windows(x: Tensor, weight: Tensor, bias: Tensor | None, grid: PatchGrid, geometry: Geometry) -> Tensor:
    """Convolve packed cells [n, C, p, p] → [n, O, q, q], as a matrix product of windows. Ungrouped. Differentiable
    once."""
    index = window_index(grid, x.shape[2], geometry.kernel, geometry.stride, *geometry.rim)
    found: Tensor = _Windows.apply(x, weight, bias, index)
    return found


def by_cells(x: Tensor, weight: Tensor, bias: Tensor | None, grid: PatchGrid, geometry: Geometry) -> Tensor:
    """Compute the same as an unpadded convolution of padded cells. Differentiable once."""
    if geometry.rim == (0, 0):  # the outputs see nothing outside the cell: no gathering is needed
        return F.conv2d(x, *cast(x.dtype, weight, bias), geometry.stride, 0, 1, geometry.groups)
    found: Tensor = _Padded.apply(x, weight, bias, grid, geometry)
    return found


class _Every(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, stride: int) -> Tensor:
        ctx.stride, ctx.side = stride, x.shape[2]
        return x[:, :, ::stride, ::stride].contiguous(memory_format=torch.channels_last)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        spread = grad.new_zeros(grad.shape[0], ctx.side, ctx.side, grad.shape[1]).permute(0, 3, 1, 2)
        spread[:, :, :: ctx.stride, :: ctx.stride] = grad
        return spread, None


def every(x: Tensor, stride: int) -> Tensor:
    """Return every `stride`-th pixel of packed cells in channels-last memory. Its gradient is in channels-last memory
    too; the gradient of a slice would be contiguous, and every layer before the last stride would then read two memory
    formats."""
    found: Tensor = x if stride == 1 else _Every.apply(x, stride)
    return found
