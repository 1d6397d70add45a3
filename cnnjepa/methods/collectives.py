"""Values of all processes, with gradients, for losses over the global batch.

Without a process group the values are the process's own. A gradient that flows back is the sum of the gradients from
all processes. DistributedDataParallel averages over processes, and so yields the gradient on the joined batch.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_alone: ContextVar[bool] = ContextVar("alone", default=False)


def world() -> tuple[int, int]:
    """Return (rank, number of processes)."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() and not _alone.get() else (0, 1)


@contextlib.contextmanager
def this_process_alone() -> Iterator[None]:
    """Compute losses over this process's values only, while the other processes wait."""
    before = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(before)


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        ctx.rows = x.shape[0]
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        first = dist.get_rank() * ctx.rows
        return grad[first : first + ctx.rows]


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def gathered(x: Tensor) -> Tensor:
    """Concatenate [n, …] of all processes, in rank order: [processes · n, …]. All processes must give the same n."""
    whole: Tensor = x if world()[1] == 1 else _Gathered.apply(x)
    return whole


def summed(x: Tensor) -> Tensor:
    """Sum tensors of one shape over all processes."""
    total: Tensor = x if world()[1] == 1 else _Summed.apply(x)
    return total
