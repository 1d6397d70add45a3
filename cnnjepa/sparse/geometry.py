"""A layer's kernel, stride and padding, and how far they reach beyond a cell."""

from typing import NamedTuple


class Geometry(NamedTuple):
    """Of a square convolution or pooling."""

    kernel: int
    stride: int
    padding: int
    groups: int = 1

    @property
    def rim(self) -> tuple[int, int]:
        """Pixels that the kernel reaches beyond a cell, (before, after), when the cell's side is a multiple of stride.

        The first output starts `padding` before the cell; the last starts `stride + padding` before its end.
        """
        return self.padding, max(0, self.kernel - self.stride - self.padding)
