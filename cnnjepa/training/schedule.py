"""Learning rate and EMA momentum as functions of the step."""

import math
from dataclasses import dataclass

from cnnjepa.schemas import EMAConfig, PretrainConfig


def cosine(start: float, end: float, share: float) -> float:
    """From `start` at share 0 to `end` at share 1 along half a cosine."""
    return end - (end - start) * (1 + math.cos(math.pi * share)) / 2


@dataclass(frozen=True)
class Schedule:
    """Rates of every step of a run; steps count from 0."""

    config: PretrainConfig
    steps_per_epoch: int

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.steps_per_epoch * self.config.runtime.epochs

    def lr(self, step: int) -> float:
        """Linear warm-up, peak·(step+1)/warm-up steps, then cosine; the last step has final_lr_factor·peak."""
        peak, schedule = self.config.optimizer.lr, self.config.schedule
        warmup = round(schedule.warmup_epochs * self.steps_per_epoch)
        if step < warmup:
            return peak * (step + 1) / warmup
        share = (step - warmup) / max(1, self.total_steps - 1 - warmup)
        return cosine(peak, peak * schedule.final_lr_factor, share)

    def momentum(self, step: int) -> float:
        """The target encoder's momentum in the update before this step's forward pass."""
        ema: EMAConfig = self.config.method.ema
        if ema.update == "per_epoch":
            return cosine(ema.start, ema.end, step // self.steps_per_epoch / max(1, self.config.runtime.epochs - 1))
        return cosine(ema.start, ema.end, step / max(1, self.total_steps - 1))
