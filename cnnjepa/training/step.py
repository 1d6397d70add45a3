"""One optimiser step over all parts and processes."""

from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cnnjepa.methods import Method
from cnnjepa.schemas import PretrainConfig
from cnnjepa.tensor_ops.tf32 import tf32
from cnnjepa.training.distributed import Processes
from cnnjepa.training.graphed_step import GraphedStep


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
    graphed: GraphedStep | None = None,
) -> Stepped:
    """Run forward pass, backward pass and update. `graphed` replaces forward and backward pass.

    The loss is the mean over all terms of the global batch (target cells, images): every part's sum is divided by the
    global count before the backward pass. DistributedDataParallel averages gradients, hence the factor of the world
    size.
    """
    method = model.module if isinstance(model, DistributedDataParallel) else model
    assert isinstance(method, Method)
    terms = processes.sum(method.terms(*inputs))
    scalars: dict[str, Tensor] = {}
    with tf32(config.runtime.precision == "tf32"):
        if graphed is not None:
            total = graphed(inputs, terms)
        else:
            total, scalars = _both_passes(model, inputs, terms, config, processes)
    if config.optimizer.clip_norm is not None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, config.optimizer.clip_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return Stepped(processes.sum(total) / terms, scalars)


def _both_passes(
    model: nn.Module, inputs: tuple[Tensor, ...], terms: Tensor, config: PretrainConfig, processes: Processes
) -> tuple[Tensor, dict[str, Tensor]]:
    """Set the gradients, part by part, and return the loss's sum and the last part's scalars."""
    runtime = config.runtime
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
    return total, loss.scalars
