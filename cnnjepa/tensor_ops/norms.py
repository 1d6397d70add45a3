"""Batch norms of another class."""

from typing import TypeVar

import torch
from torch.nn.modules.batchnorm import _BatchNorm

Norm = TypeVar("Norm", bound=_BatchNorm)


def norm_like(kind: type[Norm], norm: _BatchNorm) -> Norm:
    """Return a norm of class `kind` that shares the parameters and statistics of `norm`, in the same mode."""
    with torch.device("meta"):
        new = kind(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    new.weight, new.bias = norm.weight, norm.bias
    for name, value in norm.named_buffers(recurse=False):
        setattr(new, name, value)
    return new.train(norm.training)
