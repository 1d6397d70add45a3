"""Pooled features, and the precision in which they are compared."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def pooled(network: nn.Module, images_BCHW: Tensor) -> Tensor:
    """Return features averaged over positions, [B, C]."""
    features: Tensor = network(images_BCHW).mean((2, 3))
    return features


@contextmanager
def full_precision(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Give the tensors in float32 (float64 is kept), outside autocast: losses are not computed in bf16."""
    with torch.autocast(tensors[0].device.type, enabled=False):
        yield tuple(t if t.dtype == torch.float64 else t.float() for t in tensors)
