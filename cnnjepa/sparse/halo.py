"""Gathering of cells with the rim of their neighbours, or of a kernel's windows, pixel by pixel through an index.

Shapes: n visible cells, C channels, p pixels per side, `before` and `after` pixels of rim. Rows [n·p·p, C] are the
pixels of packed cells [n, C, p, p] in channels-last memory, cell by cell.
"""

import torch
from torch import Tensor

from cnnjepa import kernels
from cnnjepa.sparse.patch_grid import PatchGrid


class PixelIndex:
    """Source positions of a gathered tensor's pixels. `flat` holds a row number, `rows` for pixels of a hidden
    neighbour, and `rows + 1` for pixels outside the image. The transpose is computed by gathering too: no scatter, no
    atomics. `most` is the number of positions at most to which one row is gathered."""

    def __init__(self, places: Tensor, rows: int, most: int) -> None:
        self.places, self.rows, self._most = places, rows, most
        self._transpose: tuple[Tensor, Tensor] | Tensor | None = None

    def gather(self, cells: Tensor, outside: float = 0.0) -> Tensor:
        """Gather packed cells → [number of positions, C]. Hidden pixels are 0."""
        rows = as_rows(cells)
        if kernels.used("gather", rows) and rows.is_contiguous():
            from cnnjepa.kernels.gather import gather_sum

            return gather_sum(rows, self.places.view(-1, 1), outside)
        extended = rows.new_empty(self.rows + 2, rows.shape[1])
        extended[: self.rows] = rows
        extended[self.rows] = 0.0
        extended[self.rows + 1] = outside
        return extended.index_select(0, self.places.flatten())

    def sum_back(self, gathered: Tensor) -> Tensor:
        """Compute the transpose: [number of positions, C] → rows [n·p·p, C]. Each row is the sum over the positions to
        which it was gathered, in a fixed order."""
        if gathered.device.type == "cpu" and not kernels.used("gather", gathered):
            return self._sum_in_bags(gathered)
        if not isinstance(self._transpose, Tensor):
            self._transpose = self._sources()
        if kernels.used("gather", gathered):
            from cnnjepa.kernels.gather import gather_sum

            return gather_sum(gathered.contiguous(), self._transpose)
        extended = torch.cat([gathered, gathered.new_zeros(1, gathered.shape[1])])
        summed = extended.index_select(0, self._transpose[:, 0])
        for places in self._transpose[:, 1:].unbind(1):
            summed += extended.index_select(0, places)
        return summed

    def _sum_in_bags(self, gathered: Tensor) -> Tensor:
        """Compute the transpose with torch's bags: fast on a CPU, and 65 % of a step's time on a GPU
        (docs/performance_gpu.md)."""
        if self._transpose is None:
            self._transpose = self._sorted()
        order, starts = self._transpose
        # One more bag than there are rows, for pixels without a source. Its sum is discarded.
        summed: Tensor = torch.embedding_bag(gathered, order, starts, mode=0)[0]
        return summed[: self.rows]

    def _sorted(self) -> tuple[Tensor, Tensor]:
        """Return the positions ordered by their row, and where each row's positions start among them."""
        places, order = self.places.flatten().sort(stable=True)
        wanted = torch.arange(self.rows + 1, device=places.device)
        return order, torch.searchsorted(places, wanted)

    def _sources(self) -> Tensor:
        """Return the positions of each row, [n·p·p, most]; the number of positions stands for none."""
        order, starts = self._sorted()
        nth = starts[:-1, None] + torch.arange(self._most, device=starts.device)
        taken = nth < starts[1:, None]
        return torch.where(taken, order[nth.clamp(max=order.shape[0] - 1)], order.shape[0])


def halo_index(grid: PatchGrid, p: int, before: int, after: int) -> PixelIndex:
    """Return the index [n, side, side] of padded cells, side = before + p + after. It is stored in the grid."""
    return grid.kept(("halo", p, before, after), lambda: _halo_index(grid, p, before, after, grid.n))


def rounded_halo_index(grid: PatchGrid, p: int, before: int, after: int) -> PixelIndex:
    """Return the same for `grid.rounded` cells; those after the n visible ones are all hidden."""
    if grid.rounded == grid.n:
        return halo_index(grid, p, before, after)
    key = ("rounded halo", p, before, after)
    return grid.kept(key, lambda: _halo_index(grid, p, before, after, grid.rounded))


def _halo_index(grid: PatchGrid, p: int, before: int, after: int, cells: int) -> PixelIndex:
    places = _places(grid, p, before, after)
    if cells != grid.n:
        places = torch.cat([places, places.new_full((cells - grid.n, *places.shape[1:]), grid.n * p * p)])
    # Along one axis a pixel is in its own cell and in those whose rims reach it.
    along = 1 - (-before // p) - (-after // p)
    return PixelIndex(places, grid.n * p * p, along * along)


def window_index(grid: PatchGrid, p: int, kernel: int, stride: int, before: int, after: int) -> PixelIndex:
    """Return the index [n, q, q, kernel, kernel] of a kernel's windows, with q = p / stride outputs per side. It is
    stored in the grid."""

    def build() -> PixelIndex:
        padded = halo_index(grid, p, before, after)
        windows = padded.places.unfold(1, kernel, stride).unfold(2, kernel, stride)
        return PixelIndex(windows.contiguous(), padded.rows, (-(-kernel // stride)) ** 2)

    return grid.kept(("windows", p, kernel, stride, before, after), build)


def _places(grid: PatchGrid, p: int, before: int, after: int) -> Tensor:
    pixel = torch.arange(-before, p + after, device=grid.row_n.device)  # along one axis, from the cell's first pixel
    away, within = pixel.div(p, rounding_mode="floor"), pixel.remainder(p)
    first = -before // p
    span = range(first, (p + after - 1) // p + 1)
    cells = torch.stack([torch.stack([grid.neighbour(down, right) for right in span], 1) for down in span], 1)
    cell = cells[:, (away - first)[:, None], (away - first)[None]]  # [n, side, side]
    place = cell * (p * p) + within[:, None] * p + within
    nowhere = cell + (grid.n * p * p - grid.n)  # n stands for a hidden neighbour, n + 1 for the outside
    return torch.where(cell < grid.n, place, nowhere)


def padded_cells(x: Tensor, index: PixelIndex, outside: float = 0.0) -> Tensor:
    """Pad packed cells [n, C, p, p] → [n, C, before+p+after, before+p+after], through a `halo_index`. The rim holds the
    neighbours' pixels, 0 where a neighbour is masked, and `outside` beyond the image's border. There is no gradient
    here: the layers define their own."""
    return as_cells(index.gather(x, outside), index.places.shape[1])


def as_rows(cells: Tensor) -> Tensor:
    """Reshape [n, C, p, p] → [n·p·p, C]; a view if the memory is channels-last."""
    return cells.permute(0, 2, 3, 1).flatten(0, 2)


def as_cells(rows: Tensor, p: int) -> Tensor:
    """Reshape [n·p·p, C] → [n, C, p, p], a view in channels-last memory. Cells of one pixel get the strides of batch
    norm's output: with two different strides, its backward pass took 40 times as long."""
    if p == 1:
        return rows[:, :, None, None]
    return rows.unflatten(0, (-1, p, p)).permute(0, 3, 1, 2)
