"""Context and target masks over the cells of the feature grid."""

from typing import NamedTuple

from torch import Tensor


class Masks(NamedTuple):
    """Boolean masks [B, R, C] of R rows and C columns of cells. No cell is in both. With the built-in strategies every
    cell is in one of them."""

    context: Tensor
    """True for cells whose patch the context encoder sees."""
    target: Tensor
    """True for cells at which the loss is computed."""

    def part(self, start: int, stop: int) -> "Masks":
        """Return the masks of the samples [start, stop)."""
        return Masks(self.context[start:stop], self.target[start:stop])
