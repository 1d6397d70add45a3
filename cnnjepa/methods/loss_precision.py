"""The precision in which losses are computed."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def full_precision(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Give the tensors in float32 (float64 is kept), outside autocast: losses are not computed in bf16."""
    with torch.autocast(tensors[0].device.type, enabled=False):
        yield tuple(t if t.dtype == torch.float64 else t.float() for t in tensors)
