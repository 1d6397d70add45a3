"""The optimiser and the learning-rate schedule."""

from typing import Literal

from pydantic import Field, field_validator

from cnnjepa.schemas.base import Section


class OptimizerConfig(Section):
    """AdamW over all parameters, weight decay on all of them."""

    name: Literal["adamw"] = "adamw"
    """Source: paper IV-C."""

    lr: float = Field(default=0.01, gt=0)
    """Peak learning rate; not scaled by the batch size. Source: paper IV-C, 0.01 at a global batch of 512."""

    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled weight decay, on biases and norms too. Source: paper IV-C and the authors' code."""

    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's moment decays. Source: the authors' code (the framework's defaults)."""

    @field_validator("betas")
    @classmethod
    def _decays(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in value):
            raise ValueError("must be two numbers of at least 0 and below 1")
        return value

    clip_norm: float | None = Field(default=None, gt=0)
    """Global gradient norm above which gradients are scaled down; None = no clipping, as the authors."""


class ScheduleConfig(Section):
    """Linear warm-up, then cosine, stepped every iteration."""

    warmup_epochs: float = Field(default=10, ge=0)
    """Epochs of linear warm-up, lr·(step+1)/warm-up steps. Source: paper IV-C, 10."""

    final_lr_factor: float = Field(default=0.001, ge=0, le=1)
    """The last step's learning rate as a share of the peak. Source: the authors' code, 0.001."""
