"""Values of all processes, with gradients: how a loss looks at the global batch.

Without a process group everything is the process's own. A gradient that flows back is the sum of what every process
asks of it, so that the mean over processes that DistributedDataParallel takes is the gradient on the joined batch.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> tuple[int, int]:
    """(rank, processes)."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


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
    """[n, …] of every process, in the order of processes: [processes · n, …]. All must give the same n."""
    whole: Tensor = x if world()[1] == 1 else _Gathered.apply(x)
    return whole


def summed(x: Tensor) -> Tensor:
    """The sum over processes of tensors of one shape."""
    total: Tensor = x if world()[1] == 1 else _Summed.apply(x)
    return total
