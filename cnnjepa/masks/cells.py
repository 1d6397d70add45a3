"""Context and target as maps of cells."""

from typing import NamedTuple

from torch import Tensor


class Masks(NamedTuple):
    """Boolean masks [B, G, G]. No cell is both; with our strategies every cell is one of them."""

    context: Tensor
    """True where the context encoder sees the patch."""
    target: Tensor
    """True where the loss is taken."""

    def part(self, start: int, stop: int) -> "Masks":
        """The samples [start, stop)."""
        return Masks(self.context[start:stop], self.target[start:stop])
