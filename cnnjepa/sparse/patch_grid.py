"""The visible cells of a batch and their neighbours.

Shapes: B samples, G cells per side, n visible cells in the batch, p pixels per side of a cell at some depth.
"""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from cnnjepa.tensor_ops.transfer import moved

Kept = TypeVar("Kept")


class PatchGrid:
    """Index tables for one batch's visible cells, built from a boolean mask [B, G, G] (True = visible).

    Packed tensors [n, C, p, p] hold the visible cells in the order of `cells` (sample, then row, then column).

    The tables are on `device`, by default that of the mask. The host needs to know only the number of visible cells. A
    mask in host memory gives it without waiting; a mask on a GPU requires one synchronisation. Nothing after that
    waits.
    """

    def __init__(self, context_BGG: Tensor, device: torch.device | None = None) -> None:
        if context_BGG.dtype != torch.bool or context_BGG.dim() != 3 or context_BGG.shape[1] != context_BGG.shape[2]:
            raise ValueError(
                f"a context mask is boolean [B, G, G]; given {context_BGG.dtype} {list(context_BGG.shape)}"
            )
        self.batch, self.side = context_BGG.shape[0], context_BGG.shape[1]
        cells_n3 = context_BGG.nonzero()
        self.n = cells_n3.shape[0]
        if self.n == 0:
            raise ValueError("the context masks have no visible cell; a batch needs at least one")
        self.sample_n, self.row_n, self.column_n = moved(cells_n3, device or context_BGG.device).unbind(1)
        places = self.row_n.new_full(context_BGG.shape, self.n)
        places[self.sample_n, self.row_n, self.column_n] = torch.arange(self.n, device=places.device)
        self._places_BGG = places
        self.rounded = _rounded(self.n) if places.device.type == "cuda" else self.n
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
            inside_n = (row_n >= 0) & (row_n < self.side) & (column_n >= 0) & (column_n < self.side)
            last = self.side - 1
            index_n = self._places_BGG[self.sample_n, row_n.clamp(0, last), column_n.clamp(0, last)]
            return torch.where(inside_n, index_n, self.n + 1)

        return self.kept(("neighbour", down, right), build)

    def pack(self, map_BCHW: Tensor) -> Tensor:
        """Return the visible cells [n, C, p, p] of a dense map [B, C, G·p, G·p]. Masked pixels are never read."""
        b, c, height, width = map_BCHW.shape
        if (b, height % self.side, width) != (self.batch, 0, height):
            raise ValueError(
                f"a map [{self.batch}, C, {self.side}·p, {self.side}·p] is needed for this mask; "
                f"given {list(map_BCHW.shape)}"
            )
        p = height // self.side
        cells = map_BCHW.view(b, c, self.side, p, self.side, p)
        packed = cells[self.sample_n, :, self.row_n, :, self.column_n, :]
        return packed.contiguous(memory_format=torch.channels_last)

    def unpack(self, packed_nC: Tensor) -> Tensor:
        """Return the dense map [B, C, G, G] of cell vectors [n, C], zero where masked."""
        rows = packed_nC.new_zeros(self.batch * self.side**2, packed_nC.shape[1])
        rows = rows.index_copy(0, self._flat_n, packed_nC)
        return rows.view(self.batch, self.side, self.side, -1).permute(0, 3, 1, 2)

    @property
    def _flat_n(self) -> Tensor:
        """Return the index of every visible cell among all cells of the batch."""
        return (self.sample_n * self.side + self.row_n) * self.side + self.column_n

    def unpack_cells(self, packed_nCpp: Tensor) -> Tensor:
        """Return the dense map [B, C, G·p, G·p] of packed cells, zero where masked, in channels-last memory."""
        _, c, p, _ = packed_nCpp.shape
        cells = packed_nCpp.new_zeros(self.batch * self.side**2, p, p, c)
        cells = cells.index_copy(0, self._flat_n, packed_nCpp.permute(0, 2, 3, 1))
        rows = cells.view(self.batch, self.side, self.side, p, p, c).permute(0, 1, 3, 2, 4, 5)
        return rows.reshape(self.batch, self.side * p, self.side * p, c).permute(0, 3, 1, 2)

    def take_cells(self, map_BCHW: Tensor) -> Tensor:
        """Return the same as `pack`. The gradient is written without accumulation, since no cell is taken twice."""
        b, c, height, _ = map_BCHW.shape
        p = height // self.side
        rows = map_BCHW.permute(0, 2, 3, 1).reshape(b, self.side, p, self.side, p, c).permute(0, 1, 3, 2, 4, 5)
        return rows.reshape(-1, p, p, c).index_select(0, self._flat_n).permute(0, 3, 1, 2)


def _rounded(n: int) -> int:
    """Round up to one of 32 numbers per power of two, at most 3 % above n."""
    step = 1 << max(0, n.bit_length() - 6)
    return -(-n // step) * step
