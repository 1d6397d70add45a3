"""One optimiser step over all parts and processes."""

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cnnjepa.masks import Masks
from cnnjepa.schemas import PretrainConfig
from cnnjepa.training.distributed import Processes


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images_BCHW: Tensor,
    masks: Masks,
    config: PretrainConfig,
    processes: Processes,
) -> Tensor:
    """Forward, backward and update; gives the loss (float32 scalar on the device, not synchronised).

    The loss is the mean over all target cells of the global batch: every part's sum is divided by the global
    count before the backward. DistributedDataParallel averages gradients, hence the factor of the world size.
    """
    runtime = config.runtime
    cells = processes.sum(masks.target.sum(dtype=torch.float32))
    total = torch.zeros((), device=images_BCHW.device)
    size = images_BCHW.shape[0] // runtime.accumulation
    for part in range(runtime.accumulation):
        span = slice(part * size, (part + 1) * size)
        last = part == runtime.accumulation - 1
        waits = isinstance(model, DistributedDataParallel) and not last
        with model.no_sync() if waits else nullcontext():  # type: ignore[operator]
            with torch.autocast(images_BCHW.device.type, torch.bfloat16, enabled=runtime.precision == "bf16"):
                loss = model(images_BCHW[span], masks.context[span], masks.target[span])
            (loss.total * (processes.world_size / cells)).backward()
        total += loss.total.detach()
    if config.optimizer.clip_norm is not None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, config.optimizer.clip_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return processes.sum(total) / cells
