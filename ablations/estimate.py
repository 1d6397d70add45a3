"""What a study would take: parameters, FLOPs, hours, GPU-hours and disk, before anything is run."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from cnnjepa.cost import MethodCost, method_cost
from cnnjepa.doctor import training_rate
from cnnjepa.schemas import PretrainConfig

# Images of a calibration step on a CPU, where a full batch of a large network would take a minute.
_CPU_BATCH = 16


class Estimate(NamedTuple):
    """One trial's."""

    cost: MethodCost
    hours: float | None
    """Wall hours of training; None where no speed is known."""
    disk_bytes: int
    """Checkpoints: last, previous, best and those kept for good."""


def calibrate(config: PretrainConfig, device: torch.device, threads: int | None) -> float:
    """Images a second of a training step on this machine: a few steps on random pixels, measured, without data
    loading and probes."""
    before = torch.get_num_threads()
    if threads:
        torch.set_num_threads(threads)
    try:
        batch = min(config.runtime.batch_size, _CPU_BATCH) if device.type == "cpu" else config.runtime.batch_size
        runtime = config.runtime.model_copy(update={"batch_size": batch, "accumulation": 1})
        return training_rate(config.model_copy(update={"runtime": runtime}), device)
    finally:
        torch.set_num_threads(before)


def estimates(
    configs: Sequence[PretrainConfig], images: int | None, images_per_s: float | None, world_size: int = 1
) -> list[Estimate]:
    """One for every config. `images` are an epoch's; `images_per_s` is a process's for the first config, the others'
    follow from their FLOPs an image."""
    known: dict[str, MethodCost] = {}
    found: list[Estimate] = []
    for config in configs:
        key = config.model_copy(update={"runtime": config.runtime.model_copy(update={"seed": 0})}).model_dump_json()
        if key not in known:
            known[key] = method_cost(config)
        cost = known[key]
        hours = None
        if images and images_per_s:
            rate = images_per_s * found[0].cost.flops_per_image / cost.flops_per_image if found else images_per_s
            hours = images * config.runtime.epochs / (rate * world_size) / 3600
        found.append(Estimate(cost, hours, _disk(cost, config)))
    return found


def _disk(cost: MethodCost, config: PretrainConfig) -> int:
    """float32 weights of both encoders and the predictor, and AdamW's two moments of what is trained."""
    trained = cost.encoder_params + cost.predictor_params
    checkpoint = 4 * (trained + cost.encoder_params + 2 * trained)
    kept = 2 + bool(config.probe.every_epochs) + len(config.runtime.keep_epochs)
    return checkpoint * kept
