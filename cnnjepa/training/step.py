"""One optimiser step over all parts and processes."""

from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cnnjepa.methods import Method
from cnnjepa.schemas import PretrainConfig
from cnnjepa.training.distributed import Processes


class Stepped(NamedTuple):
    """Outcome of a step; on the device, not synchronised."""

    loss: Tensor
    """float32 scalar, over the global batch."""
    scalars: dict[str, Tensor]
    """The method's further figures, from the last part of this process."""


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: tuple[Tensor, ...],
    config: PretrainConfig,
    processes: Processes,
) -> Stepped:
    """Run forward pass, backward pass and update.

    The loss is the mean over all terms of the global batch (target cells, images): every part's sum is divided by the
    global count before the backward pass. DistributedDataParallel averages gradients, hence the factor of the world
    size.
    """
    runtime = config.runtime
    method = model.module if isinstance(model, DistributedDataParallel) else model
    assert isinstance(method, Method)
    terms = processes.sum(method.terms(*inputs))
    total = torch.zeros((), device=inputs[0].device)
    size = inputs[0].shape[0] // runtime.accumulation
    for part in range(runtime.accumulation):
        span = slice(part * size, (part + 1) * size)
        last = part == runtime.accumulation - 1
        waits = isinstance(model, DistributedDataParallel) and not last
        with model.no_sync() if waits else nullcontext():  # type: ignore[operator]
            with torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=runtime.precision == "bf16"):
                loss = model(*[x[span] for x in inputs])
            (loss.total * (processes.world_size / terms)).backward()
        total += loss.total.detach()
    if config.optimizer.clip_norm is not None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, config.optimizer.clip_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return Stepped(processes.sum(total) / terms, loss.scalars)
