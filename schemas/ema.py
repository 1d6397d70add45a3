"""The moving average by which a target network follows the trained network."""

from typing import Literal, Self

from pydantic import Field, model_validator

from cnnjepa.schemas.base import Section


class EMAConfig(Section):
    """The target encoder's momentum: cosine from `start` to `end`, applied before the forward pass."""

    start: float = Field(default=0.996, ge=0, le=1)
    """Momentum at the first update. Source: docs/sources.md#ema-schedule."""

    end: float = Field(default=1.0, ge=0, le=1)
    """Momentum at the last update. Source: docs/sources.md#ema-schedule."""

    update: Literal["per_epoch", "per_step"] = "per_epoch"
    """When the momentum changes: after every epoch (it is 1 throughout the last one) or after every step. The average
    itself is updated at every step in both cases. Source: docs/sources.md#ema-schedule."""

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.end < self.start:
            raise ValueError(f"ema.end {self.end:g} is below ema.start {self.start:g}; the momentum must not fall")
        return self


class StepwiseEMAConfig(EMAConfig):
    """The target encoder's momentum, changed at every step: BYOL and I-JEPA."""

    update: Literal["per_epoch", "per_step"] = "per_step"
    """When the momentum changes: after every epoch or after every step. Source: docs/sources.md#ijepa-ema; BYOL's
    schedule differs: docs/sources.md#byol-ema."""
