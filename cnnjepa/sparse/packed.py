"""The packed context encoder, which computes visible patches only."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from cnnjepa.sparse.layers import PACKED, GridSlot, PackedBatchNorm2d, PackedConv2d, PackedMaxPool2d, exchange
from cnnjepa.sparse.patch_grid import PaddedCells, PatchGrid


class PackedEncoder(nn.Module):
    """Runs a residual backbone on the visible cells of each batch, with exact results (see docs/method.md).

    `backbone` maps images [B, K, H, W] to features [B, C, H/s, W/s]. Its convolutions and poolings are replaced by
    packed ones that share its parameters and their names. `backbone.total_stride`, if it has one, must be s, the side
    of a cell in pixels."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self._slot = GridSlot()
        self._padded: PaddedCells | None = None
        exchange(backbone, self._packed)
        self.network = backbone

    def _packed(self, layer: nn.Module) -> nn.Module | None:
        if isinstance(layer, PACKED):
            raise ValueError("this backbone is packed already; give a plain one")
        if isinstance(layer, nn.Conv2d):
            return PackedConv2d.of(layer, self._slot)
        if isinstance(layer, nn.MaxPool2d):
            return PackedMaxPool2d.of(layer, self._slot)
        if type(layer) is nn.BatchNorm2d:
            return PackedBatchNorm2d.of(layer, self._slot)
        return None

    def forward(self, images_BCHW: Tensor, context_BGG: Tensor) -> Tensor:
        """Return features [B, C, rows, columns] of the context (boolean [B, rows, columns], True = visible); zero at
        masked cells.

        With a mask in host memory, the caller does not wait for the GPU to return the number of visible cells.
        """
        with self._on(images_BCHW, context_BGG) as grid:
            packed = self.network(grid.pack(images_BCHW))
        if packed.shape[2:] != (1, 1):
            raise ValueError(
                f"images of {images_BCHW.shape[2]}x{images_BCHW.shape[3]} px on a {grid.rows}x{grid.columns} grid end "
                f"in cells of {packed.shape[2]} pixels, not 1: the grid must be the image size divided by the total "
                "stride"
            )
        return grid.unpack(packed.flatten(1))

    def stage_maps(self, images_BCHW: Tensor, context_BGG: Tensor, norms: Sequence[nn.Module]) -> list[Tensor]:
        """Return the maps [B, C, rows·p, columns·p] of the last len(norms) stages of a backbone with stages, the
        deepest (p = 1) first. Each map has passed its norm, which sees visible positions only. Masked cells are
        zero."""
        with self._on(images_BCHW, context_BGG) as grid:
            packed = self.network.stage_maps(grid.pack(images_BCHW))  # type: ignore[operator]
        return [grid.unpack_cells(norm(cells)) for norm, cells in zip(norms, reversed(packed), strict=False)]

    @contextmanager
    def _on(self, images_BCHW: Tensor, context_BGG: Tensor) -> Iterator[PatchGrid]:
        """Let the layers compute on the visible cells of this grid within the block."""
        grid = PatchGrid(context_BGG, images_BCHW.device, self._padded)
        height, width = images_BCHW.shape[2:]
        stride = getattr(self.network, "total_stride", height // grid.rows)
        if (height, width) != (grid.rows * stride, grid.columns * stride):
            raise ValueError(
                f"images of {height}x{width} px at total stride {stride} need a mask of "
                f"{height // stride}x{width // stride} cells; given {grid.rows}x{grid.columns}"
            )
        self._slot.grid = grid
        try:
            yield grid
        finally:
            self._slot.grid = None

    @contextmanager
    def on_padded(self, cells: PaddedCells) -> Iterator[None]:
        """Compute on these cells instead of the mask's within the block, so that the shapes do not depend on the mask
        and the host reads nothing. The mask is still needed for its shape. Batch norms must be computed by their
        kernel, which leaves the padding out; others raise RuntimeError."""
        self._padded = cells
        try:
            yield
        finally:
            self._padded = None

    def dense_copy(self) -> nn.Module:
        """Return a plain copy of the network, which shares nothing with it."""
        network = copy.deepcopy(self.network)
        exchange(network, lambda layer: layer.dense() if isinstance(layer, PACKED) else None)
        return network
