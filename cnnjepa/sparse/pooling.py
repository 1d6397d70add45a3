"""Max-pooling of packed cells. The backward pass keeps the position of each maximum in two bytes; torch's own keeps
eight bytes per output, and the padded cells as well.

Shapes: n visible cells, C channels, p pixels per side of an input cell and q = p / stride of an output cell.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from cnnjepa.sparse.geometry import Geometry
from cnnjepa.sparse.halo import as_cells, as_rows, halo_index, padded_cells
from cnnjepa.sparse.patch_grid import PatchGrid


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: PatchGrid, geometry: Geometry) -> Tensor:
        index = halo_index(grid, x.shape[2], *geometry.rim)
        padded = padded_cells(x, index, outside=float("-inf"))
        largest, places = F.max_pool2d(padded, geometry.kernel, geometry.stride, return_indices=True)
        ctx.index, ctx.geometry, ctx.padded, ctx.side = index, geometry, padded.shape, x.shape[2]
        # A position is a pixel's number within its padded cell.
        small = padded.shape[2] * padded.shape[3] <= torch.iinfo(torch.int16).max
        ctx.save_for_backward(places.to(torch.int16 if small else torch.int32))
        return largest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        geometry: Geometry = ctx.geometry
        # torch requires this tensor but uses only its shape and layout.
        shaped = torch.empty(ctx.padded, dtype=grad.dtype, device=grad.device, memory_format=torch.channels_last)
        grad_padded = torch.ops.aten.max_pool2d_with_indices_backward(
            grad, shaped, [geometry.kernel] * 2, [geometry.stride] * 2, [0, 0], [1, 1], False, places.long()
        )
        return as_cells(ctx.index.sum_back(as_rows(grad_padded)), ctx.side), None, None


def max_pool_cells(x: Tensor, grid: PatchGrid, geometry: Geometry) -> Tensor:
    """Pool packed cells [n, C, p, p] → [n, C, q, q]. Pixels of a hidden neighbour are 0, and pixels outside the image
    −inf. Differentiable once."""
    found: Tensor = _MaxPool.apply(x, grid, geometry)
    return found
