"""Convolution and max-pooling that run densely, or on packed cells while a grid is set.

All other layers of a residual network (batch norm, ReLU, sums) are correct on packed tensors without changes; batch
norm then sees visible positions only. If a packed encoder is compiled, torch.compile leaves these layers as they are,
because it cannot trace their tables.
"""

import sys
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnjepa.sparse.convolution import by_cells, by_windows, every
from cnnjepa.sparse.geometry import Geometry
from cnnjepa.sparse.halo import as_cells, as_rows
from cnnjepa.sparse.patch_grid import PatchGrid
from cnnjepa.sparse.pooling import max_pool_cells
from cnnjepa.sparse.products import as_matrix, rows_product
from cnnjepa.tensor_ops.norms import norm_like

Conv = TypeVar("Conv", bound=nn.Conv2d)
_SETTINGS = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")


class GridSlot:
    """The place through which an encoder passes the grid of one forward pass to its layers."""

    def __init__(self) -> None:
        self.grid: PatchGrid | None = None


def _without_memory(kind: type[Conv], like: nn.Conv2d) -> Conv:
    """Return a convolution of `kind` with the settings of `like` and without parameters, which the caller sets."""
    settings: dict[str, Any] = {name: getattr(like, name) for name in _SETTINGS}
    with torch.device("meta"):
        return kind(**settings, bias=like.bias is not None)


class PackedConv2d(nn.Conv2d):
    """A convolution with the same parameters and names as the stock one; see the module's docstring."""

    slot: GridSlot

    @classmethod
    def of(cls, conv: nn.Conv2d, slot: GridSlot) -> "PackedConv2d":
        """Create the layer with a stock convolution's parameters. Raises ValueError for one that cannot be packed."""
        if conv.dilation != (1, 1) or conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            raise ValueError(f"{conv} cannot be packed: only undilated, zero-padded convolutions are")
        if conv.kernel_size[0] != conv.kernel_size[1] or conv.stride[0] != conv.stride[1]:
            raise ValueError(f"{conv} cannot be packed: only square kernels and strides are")
        if conv.kernel_size[0] == 1 and conv.padding[0] != 0:
            raise ValueError(f"{conv} cannot be packed: a padded 1x1 convolution enlarges its cells")
        packed = _without_memory(cls, conv)
        packed.weight, packed.bias, packed.slot = conv.weight, conv.bias, slot
        return packed

    def dense(self) -> nn.Conv2d:
        """Return the stock convolution with these parameters."""
        conv = _without_memory(nn.Conv2d, self)
        conv.weight, conv.bias = self.weight, self.bias
        return conv

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, input: Tensor) -> Tensor:
        """Convolve dense input [B, C, H, W], or packed cells [n, C, p, p] while a grid is set."""
        grid = self.slot.grid
        if grid is None:
            return super().forward(input)
        geometry = Geometry(self.kernel_size[0], self.stride[0], int(self.padding[0]), self.groups)
        if geometry.padding > input.shape[2]:
            return self._on_map(input, grid)
        x, weight, bias = _autocast(input, self.weight), self.weight, self.bias
        side = x.shape[2] // geometry.stride
        if self.groups == 1 and side <= _product_side(x, geometry.kernel):
            if geometry.kernel == 1:
                rows = as_rows(every(x, geometry.stride))
                return as_cells(rows_product(rows, as_matrix(weight), bias), side)
            return by_windows(x, weight, bias, grid, geometry)
        return by_cells(x, weight, bias, grid, geometry)

    def _on_map(self, x: Tensor, grid: PatchGrid) -> Tensor:
        """Convolve a dense map. Used where the halo is wider than a cell, because cells would be copied up to 49
        times."""
        dense = F.conv2d(
            grid.unpack_cells(x), self.weight, self.bias, self.stride, int(self.padding[0]), 1, self.groups
        )
        return grid.take_cells(dense)


def _product_side(x: Tensor, kernel: int) -> int:
    """Return the number of output pixels per side of a cell up to which the convolution is computed as a matrix
    product. On CPUs the library's kernels for convolutions are slow on small maps. Windows take nine times the cells'
    bytes; above about 30 MB (2 pixels per side in float32, 4 in bf16) new memory pages cost more than the product saves
    (docs/performance.md). On a GPU, a product costs as much as a 1x1 convolution, and is not prepared anew for each
    number of cells (docs/performance_gpu.md)."""
    if x.device.type != "cpu":
        return sys.maxsize if kernel == 1 else 0
    return sys.maxsize if kernel == 1 else 8 // x.element_size()


def _autocast(x: Tensor, weight: Tensor) -> Tensor:
    """Cast a convolution's input as autocast would, if autocast is on. The weights are cast inside the products and the
    padded convolutions, which keep the original parameters for the backward pass and cast them again there: their
    copies are a tenth of the memory that a step keeps. (torch's own convolution, used where no neighbour is needed or a
    map is convolved, keeps the copies.)

    Raises RuntimeError for an input of another dtype than the weights', as torch does.
    """
    kind = x.device.type
    on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    if not on or x.dtype == torch.float64:
        if x.dtype != weight.dtype:
            raise RuntimeError(
                f"a packed convolution's input is {x.dtype} and its weight {weight.dtype}, without autocast"
            )
        return x
    return x.to(torch.get_autocast_dtype(kind))


class PackedMaxPool2d(nn.MaxPool2d):
    """Max-pooling that treats a masked neighbour as 0 and the outside of the image as −inf, like the dense network."""

    slot: GridSlot

    @classmethod
    def of(cls, pool: nn.MaxPool2d, slot: GridSlot) -> "PackedMaxPool2d":
        """Create the layer with a stock pooling's settings."""
        settings: list[Any] = [pool.kernel_size, pool.stride, pool.padding]
        if not all(isinstance(value, int) for value in settings) or pool.dilation != 1 or pool.ceil_mode:
            raise ValueError(f"{pool} cannot be packed: only square, undilated pooling without ceil_mode is")
        packed = cls(*settings)
        packed.slot = slot
        return packed

    def dense(self) -> nn.MaxPool2d:
        """Return the stock pooling with these settings."""
        return nn.MaxPool2d(self.kernel_size, self.stride, self.padding)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, input: Tensor) -> Tensor:
        """Pool dense input [B, C, H, W], or packed cells [n, C, p, p] while a grid is set."""
        grid = self.slot.grid
        if grid is None:
            return super().forward(input)
        kernel, stride, padding = int(self.kernel_size), int(self.stride), int(self.padding)  # type: ignore[arg-type]
        return max_pool_cells(input, grid, Geometry(kernel, stride, padding))


class PackedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm, which is correct on packed cells as it is, with access to the number of cells that are padding."""

    slot: GridSlot

    @classmethod
    def of(cls, norm: nn.BatchNorm2d, slot: GridSlot) -> "PackedBatchNorm2d":
        """Create the norm with the parameters and statistics of a stock one."""
        packed = norm_like(cls, norm)
        packed.slot = slot
        return packed

    def dense(self) -> nn.BatchNorm2d:
        """Return the stock norm with these parameters and statistics."""
        return norm_like(nn.BatchNorm2d, self)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise [N, C, …]; same shape. Raises RuntimeError for padded cells in training."""
        if self.training and self.slot.grid is not None and self.slot.grid.count is not None:
            raise RuntimeError("padded cells need the batch norm kernel, which is not in use for these tensors")
        return super().forward(input)


PACKED = (PackedConv2d, PackedMaxPool2d, PackedBatchNorm2d)


def exchange(network: nn.Module, swap: Any) -> None:
    """Replace every submodule m by `swap(m)`, in place, unless that is None."""
    for name, child in list(network.named_children()):
        new = swap(child)
        if new is None:
            exchange(child, swap)
        else:
            setattr(network, name, new.train(child.training))
