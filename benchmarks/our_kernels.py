"""Works with and without the package's GPU kernels, whatever its table says of the card."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from cnnjepa import kernels
from cnnjepa.sparse import patch_grid

# Kernels of our own in use, and whether the number of cells is rounded up for cuDNN.
WAYS: dict[str, tuple[frozenset[str], bool]] = {
    "no kernels, cells not rounded": (frozenset(), False),
    "no kernels": (frozenset(), True),
    "gather kernel": (frozenset({"gather"}), True),
    "batch norm kernel": (frozenset({"batch_norm"}), True),
    "both kernels": (frozenset({"gather", "batch_norm"}), True),
}


@contextmanager
def computed(names: frozenset[str], rounded: bool = True) -> Iterator[None]:
    """Use these kernels of ours, whatever the table says of this card."""
    used, usual = kernels.used, patch_grid.rounded_up
    kernels.used = lambda kernel, x: kernel in names and x.is_cuda and x.dtype != torch.float64
    if not rounded:
        patch_grid.rounded_up = lambda n: n
    try:
        yield
    finally:
        kernels.used, patch_grid.rounded_up = used, usual


def within(way: tuple[frozenset[str], bool], work: Callable[[], None]) -> Callable[[], None]:
    def done() -> None:
        with computed(*way):
            work()

    return done
