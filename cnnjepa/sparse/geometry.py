"""A layer's kernel, stride and padding, and their reach beyond a cell."""

from typing import NamedTuple


class Geometry(NamedTuple):
    """Geometry of a square convolution or pooling."""

    kernel: int
    stride: int
    padding: int
    groups: int = 1

    @property
    def rim(self) -> tuple[int, int]:
        """Return the number of pixels that the kernel reaches beyond a cell, (before, after), if the cell's side is a
        multiple of the stride.

        The first window starts `padding` before the cell; the last window starts `stride + padding` before its end.
        """
        return self.padding, max(0, self.kernel - self.stride - self.padding)
