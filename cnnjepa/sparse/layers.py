"""Convolution and max-pooling that run densely, or on packed cells while a grid is set.

Everything else in a residual network (batch norm, ReLU, sums) is right on packed tensors as it is: batch norm
then sees visible positions only.
"""

from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnjepa.sparse.halo import with_halo
from cnnjepa.sparse.patch_grid import PatchGrid

Conv = TypeVar("Conv", bound=nn.Conv2d)
_SETTINGS = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")


class GridSlot:
    """Where one encoder hands the grid of one forward to its layers."""

    def __init__(self) -> None:
        self.grid: PatchGrid | None = None


def rim(kernel: int, stride: int, padding: int) -> tuple[int, int]:
    """Pixels that a kernel reaches beyond a cell, (before, after), when the cell's side is a multiple of stride.

    The first output starts `padding` before the cell; the last starts `stride + padding` before its end.
    """
    return padding, max(0, kernel - stride - padding)


def _without_memory(kind: type[Conv], like: nn.Conv2d) -> Conv:
    """A convolution of `kind` with the settings of `like`, whose parameters are still to be given."""
    settings: dict[str, Any] = {name: getattr(like, name) for name in _SETTINGS}
    with torch.device("meta"):
        return kind(**settings, bias=like.bias is not None)


class PackedConv2d(nn.Conv2d):
    """A convolution with the parameters and names of the stock one; see the module's docstring."""

    slot: GridSlot

    @classmethod
    def of(cls, conv: nn.Conv2d, slot: GridSlot) -> "PackedConv2d":
        """Takes over a stock convolution's parameters. Raises ValueError for one that cannot be packed."""
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
        """The stock convolution with these parameters."""
        conv = _without_memory(nn.Conv2d, self)
        conv.weight, conv.bias = self.weight, self.bias
        return conv

    def forward(self, input: Tensor) -> Tensor:
        """Dense [B, C, H, W], or packed [n, C, p, p] while a grid is set."""
        grid = self.slot.grid
        if grid is None:
            return super().forward(input)
        kernel, stride, padding = self.kernel_size[0], self.stride[0], int(self.padding[0])
        if kernel == 1 and input.shape[2] <= 2 and self.groups == 1:
            return self._on_rows(input[:, :, ::stride, ::stride])
        if padding > input.shape[2]:
            return self._on_map(input, grid)
        padded = with_halo(input, grid, *rim(kernel, stride, padding))
        if padded.shape[2] == kernel and self.groups == 1:
            return self._on_windows(padded)
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, 1, self.groups)

    def _on_map(self, x: Tensor, grid: PatchGrid) -> Tensor:
        """Where the halo is wider than a cell, cells would be copied up to 49 times: convolved as a map instead."""
        dense = F.conv2d(
            grid.unpack_cells(x), self.weight, self.bias, self.stride, int(self.padding[0]), 1, self.groups
        )
        return grid.take_cells(dense)

    def _on_rows(self, x: Tensor) -> Tensor:
        """1x1 as a matrix product on rows of channels: faster on cells of at most 2 pixels (docs/log.md)."""
        rows = F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias)
        return rows.permute(0, 3, 1, 2)

    def _on_windows(self, padded: Tensor) -> Tensor:
        """kxk where a cell has one output: a matrix product of whole windows [n, k·k·C] (docs/log.md)."""
        windows = padded.permute(0, 2, 3, 1).flatten(1)
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        return F.linear(windows, weight, self.bias)[:, :, None, None]


class PackedMaxPool2d(nn.MaxPool2d):
    """Max-pooling for which a masked neighbour is 0 and the image's outside −inf, as in the dense network."""

    slot: GridSlot

    @classmethod
    def of(cls, pool: nn.MaxPool2d, slot: GridSlot) -> "PackedMaxPool2d":
        """Takes over a stock pooling's settings."""
        settings: list[Any] = [pool.kernel_size, pool.stride, pool.padding]
        if not all(isinstance(value, int) for value in settings) or pool.dilation != 1 or pool.ceil_mode:
            raise ValueError(f"{pool} cannot be packed: only square, undilated pooling without ceil_mode is")
        packed = cls(*settings)
        packed.slot = slot
        return packed

    def dense(self) -> nn.MaxPool2d:
        """The stock pooling with these settings."""
        return nn.MaxPool2d(self.kernel_size, self.stride, self.padding)

    def forward(self, input: Tensor) -> Tensor:
        """Dense [B, C, H, W], or packed [n, C, p, p] while a grid is set."""
        grid = self.slot.grid
        if grid is None:
            return super().forward(input)
        kernel, stride, padding = int(self.kernel_size), int(self.stride), int(self.padding)  # type: ignore[arg-type]
        padded = with_halo(input, grid, *rim(kernel, stride, padding), outside=float("-inf"))
        return F.max_pool2d(padded, kernel, stride)


PACKED = (PackedConv2d, PackedMaxPool2d)


def exchange(network: nn.Module, swap: Any) -> None:
    """Replaces every submodule m, in place, for which `swap(m)` is not None by that."""
    for name, child in list(network.named_children()):
        new = swap(child)
        if new is None:
            exchange(child, swap)
        else:
            setattr(network, name, new.train(child.training))
