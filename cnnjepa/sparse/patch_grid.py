"""The visible cells of a batch and their neighbours.

Shapes: B samples, GG the grid's rows and columns of cells (their numbers may differ), n visible cells in the batch, p
pixels per side of a cell at some depth.
"""

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor

from cnnjepa.tensor_ops.transfer import moved

Kept = TypeVar("Kept")


class PaddedCells(NamedTuple):
    """The visible cells of a batch, in tensors whose shapes differ little between batches."""

    cells_m3: Tensor
    """(sample, row, column) of every visible cell, then padding (any cell)."""
    visible: Tensor
    """Number of visible cells, int32 [1], on the same device."""


class PatchGrid:
    """Index tables for one batch's visible cells, built from a boolean mask [B, rows, columns] (True = visible).

    Packed tensors [n, C, p, p] hold the visible cells in the order of `cells` (sample, then row, then column).

    With `padded`, the cells are those, not the mask's; every operation but `unpack_cells` and `take_cells` leaves the
    padding out or gives it zeros.

    The tables are on `device`, by default that of the mask. The host needs to know only the number of visible cells. A
    mask in host memory gives it without waiting; a mask on a GPU requires one synchronisation. Nothing after that
    waits.
    """

    def __init__(
        self, context_BGG: Tensor, device: torch.device | None = None, padded: "PaddedCells | None" = None
    ) -> None:
        if context_BGG.dtype != torch.bool or context_BGG.dim() != 3:
            raise ValueError(
                f"a context mask is boolean [B, rows, columns]; given {context_BGG.dtype} {list(context_BGG.shape)}"
            )
        self.batch, self.rows, self.columns = context_BGG.shape
        target = device or context_BGG.device
        if padded is None:
            cells_n3 = context_BGG.nonzero()
            if cells_n3.shape[0] == 0:
                raise ValueError("the context masks have no visible cell; a batch needs at least one")
            cells_n3 = moved(cells_n3, target)
        else:
            cells_n3 = padded.cells_m3
        self.n = cells_n3.shape[0]
        self.count = None if padded is None else padded.visible
        """Number of real cells, int32 on the device, if the others of the n are padding; None: all are real."""
        self.sample_n, self.row_n, self.column_n = cells_n3.unbind(1)
        numbers = torch.arange(self.n, device=target)
        self._real_n = None if self.count is None else numbers < self.count
        # One more place than there are cells; padding is placed there.
        self._places = self.row_n.new_full((self._cells + 1,), self.n)
        self._places[self._flat_n] = numbers
        self.rounded = rounded_up(self.n) if target.type == "cuda" and padded is None else self.n
        """Number of cells, n or somewhat more, with which convolutions are called: cuDNN prepares each new shape for
        about a millisecond, and n differs between steps."""
        self._kept: dict[Any, Any] = {}

    def kept(self, key: Hashable, build: Callable[[], Kept]) -> Kept:
        """Return the result of `build`, which is computed once per grid: layers of one depth share their tables."""
        if key not in self._kept:
            self._kept[key] = build()
        return cast(Kept, self._kept[key])

    def neighbour(self, down: int, right: int) -> Tensor:
        """Return the index [n] of the cell `down` rows and `right` columns away; n if it is masked, n + 1 if it is
        outside the image."""

        def build() -> Tensor:
            row_n, column_n = self.row_n + down, self.column_n + right
            inside_n = (row_n >= 0) & (row_n < self.rows) & (column_n >= 0) & (column_n < self.columns)
            row_n, column_n = row_n.clamp(0, self.rows - 1), column_n.clamp(0, self.columns - 1)
            flat_n = (self.sample_n * self.rows + row_n) * self.columns + column_n
            index_n = torch.where(inside_n, self._places[flat_n], self.n + 1)
            return index_n if self._real_n is None else torch.where(self._real_n, index_n, self.n)

        return self.kept(("neighbour", down, right), build)

    def pack(self, map_BCHW: Tensor) -> Tensor:
        """Return the visible cells [n, C, p, p] of a dense map [B, C, rows·p, columns·p]. Masked pixels are never
        read."""
        b, c, height, width = map_BCHW.shape
        p = height // self.rows
        if (b, height, width) != (self.batch, self.rows * p, self.columns * p):
            raise ValueError(
                f"a map [{self.batch}, C, {self.rows}·p, {self.columns}·p] is needed for this mask; "
                f"given {list(map_BCHW.shape)}"
            )
        cells = map_BCHW.view(b, c, self.rows, p, self.columns, p)
        packed = cells[self.sample_n, :, self.row_n, :, self.column_n, :]
        return packed.contiguous(memory_format=torch.channels_last)

    def unpack(self, packed_nC: Tensor) -> Tensor:
        """Return the dense map [B, C, rows, columns] of cell vectors [n, C], zero where masked."""
        cells = self._cells
        rows = packed_nC.new_zeros(cells if self.count is None else cells + 1, packed_nC.shape[1])
        rows = rows.index_copy(0, self._flat_n, packed_nC)[:cells]
        return rows.view(self.batch, self.rows, self.columns, -1).permute(0, 3, 1, 2)

    @property
    def _cells(self) -> int:
        """Return the number of cells of the batch."""
        return self.batch * self.rows * self.columns

    @property
    def _flat_n(self) -> Tensor:
        """Return the index of every visible cell among all cells of the batch; the number of cells for padding."""
        flat_n = (self.sample_n * self.rows + self.row_n) * self.columns + self.column_n
        return flat_n if self._real_n is None else torch.where(self._real_n, flat_n, self._cells)

    def unpack_cells(self, packed_nCpp: Tensor) -> Tensor:
        """Return the dense map [B, C, rows·p, columns·p] of packed cells, zero where masked, in channels-last
        memory."""
        _, c, p, _ = packed_nCpp.shape
        cells = packed_nCpp.new_zeros(self._cells, p, p, c)
        cells = cells.index_copy(0, self._flat_n, packed_nCpp.permute(0, 2, 3, 1))
        rows = cells.view(self.batch, self.rows, self.columns, p, p, c).permute(0, 1, 3, 2, 4, 5)
        return rows.reshape(self.batch, self.rows * p, self.columns * p, c).permute(0, 3, 1, 2)

    def take_cells(self, map_BCHW: Tensor) -> Tensor:
        """Return the same as `pack`. The gradient is written without accumulation, since no cell is taken twice."""
        b, c, height, _ = map_BCHW.shape
        p = height // self.rows
        rows = map_BCHW.permute(0, 2, 3, 1).reshape(b, self.rows, p, self.columns, p, c).permute(0, 1, 3, 2, 4, 5)
        return rows.reshape(-1, p, p, c).index_select(0, self._flat_n).permute(0, 3, 1, 2)


def rounded_up(n: int) -> int:
    """Round up to one of 32 numbers per power of two, at most 3 % above n."""
    step = 1 << max(0, n.bit_length() - 6)
    return -(-n // step) * step
