"""Learning rate, weight decay and EMA momentum as functions of the step."""

import math
from dataclasses import dataclass

import torch

from cnnjepa.schemas import PretrainConfig


def cosine(start: float, end: float, share: float) -> float:
    """Return the value on half a cosine from `start` at share 0 to `end` at share 1."""
    return end - (end - start) * (1 + math.cos(math.pi * share)) / 2


@dataclass(frozen=True)
class Schedule:
    """Learning rate, weight decay and momentum of every step of a run. Steps count from 0."""

    config: PretrainConfig
    steps_per_epoch: int

    @property
    def total_steps(self) -> int:
        """Number of optimiser steps of the whole run."""
        return self.steps_per_epoch * self.config.trained_epochs

    def set_rates(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Set the learning rate and weight decay of this step. Groups without weight decay are not changed."""
        for group in optimizer.param_groups:
            group["lr"] = self.lr(step)
            if self.config.optimizer.weight_decay_end is not None and group.get("decays", True):
                group["weight_decay"] = self.weight_decay(step)

    def weight_decay(self, step: int) -> float:
        """Return the weight decay: constant, or along a cosine to weight_decay_end in the last step."""
        start, end = self.config.optimizer.weight_decay, self.config.optimizer.weight_decay_end
        return start if end is None else cosine(start, end, step / max(1, self.total_steps - 1))

    def lr(self, step: int) -> float:
        """Return the learning rate: linear warm-up from the start to the peak, reached in the last warm-up step, then a
        cosine. The last step of the run has final_lr_factor·peak. If the start is 0, warm-up is peak·(step+1)/warm-up
        steps."""
        peak, schedule = self.config.optimizer.lr, self.config.schedule
        warmup = round(schedule.warmup_epochs * self.steps_per_epoch)
        if step < warmup:
            start = peak * schedule.warmup_start_factor
            return start + (peak - start) * (step + 1) / warmup
        share = (step - warmup) / max(1, self.total_steps - 1 - warmup)
        return cosine(peak, peak * schedule.final_lr_factor, share)

    def momentum(self, step: int) -> float | None:
        """Return the target encoder's momentum in the update before this step's forward pass; None for methods without
        one."""
        ema = self.config.method.moving_average
        if ema is None:
            return None
        if ema.update == "per_epoch":
            return cosine(ema.start, ema.end, step // self.steps_per_epoch / max(1, self.config.runtime.epochs - 1))
        return cosine(ema.start, ema.end, step / max(1, self.total_steps - 1))
