"""The optimiser and the learning-rate schedule."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from cnnjepa.schemas.base import Section


class _Optimizer(Section):
    """Settings shared by all optimisers."""

    OWN_FIELDS: ClassVar[tuple[str, ...]] = ("lr", "lr_at_batch", "weight_decay", "weight_decay_end")

    weight_decay_end: float | None = Field(default=None, ge=0)
    """Weight decay of the last step, reached along a cosine; None = constant. BYOL on in1k and I-JEPA raise it. Source:
    docs/sources.md#byol-optimizer, docs/sources.md#ijepa-optimizer."""

    lr_at_batch: tuple[PositiveFloat, PositiveInt] | None = None
    """A learning rate and the global batch for which it was published or chosen. A run with this `lr` and another
    global batch gets a warning. Not hashed. Source: the head comment of the preset."""

    clip_norm: float | None = Field(default=None, gt=0)
    """Global gradient norm above which gradients are scaled down; None = no clipping. Source:
    docs/sources.md#optimizer."""


class AdamWConfig(_Optimizer):
    """Adam with decoupled weight decay."""

    name: Literal["adamw"] = "adamw"
    """The optimiser that this section configures. Source: docs/sources.md#optimizer."""

    lr: float = Field(default=0.01, gt=0)
    """Peak learning rate; not scaled by the batch size. Source: docs/sources.md#learning-rate (at a global batch of
    512)."""

    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled weight decay. Source: docs/sources.md#weight-decay."""

    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's moment decays. Source: docs/sources.md#optimizer (torch's defaults)."""

    decays: Literal["all", "matrices"] = "all"
    """Parameters that decay: `all` (also biases and norms), or `matrices` (only those of at least two dimensions).
    Source: docs/sources.md#optimizer, docs/sources.md#ijepa-optimizer."""

    @field_validator("betas")
    @classmethod
    def _decays(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in value):
            raise ValueError("must be two numbers of at least 0 and below 1")
        return value


class LARSConfig(_Optimizer):
    """Momentum SGD whose step is scaled by each layer's weight and gradient norms (arXiv 1708.03888)."""

    name: Literal["lars"] = "lars"
    """The optimiser that this section configures. SimCLR, VICReg and BYOL on in1k use it. Source:
    docs/sources.md#lars."""

    lr: float = Field(default=0.5, gt=0)
    """Peak learning rate; not scaled by the batch size. Source: docs/sources.md#simclr-optimizer (1.7),
    docs/sources.md#byol-optimizer (0.45), docs/sources.md#vicreg-optimizer (0.5)."""

    weight_decay: float = Field(default=1e-6, ge=0)
    """Weight decay, added to the gradient before it is scaled. Source: docs/sources.md#simclr-optimizer."""

    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the accumulated steps. Source: docs/sources.md#lars."""

    trust: float = Field(default=0.001, gt=0)
    """Trust coefficient: a layer's step is at most about this fraction of its weights' norm, times the learning rate.
    Source: docs/sources.md#lars."""

    excluded: tuple[str, ...] = ("bias", "bn", "norm")
    """Parameters whose name contains one of these are neither decayed nor scaled. The test is by name, so
    `downsample.1.weight` and a projector's norms are not excluded. Source: docs/sources.md#lars-excluded."""

    @model_validator(mode="after")
    def _decay_stays_above_zero(self) -> Self:
        if self.weight_decay == 0 and self.weight_decay_end:
            raise ValueError(
                "weight_decay 0 with weight_decay_end above 0: LARS does not scale what does not decay, so layers "
                "would be scaled from the second step on; begin above 0, 1e-6 say"
            )
        return self


OptimizerConfig = Annotated[AdamWConfig | LARSConfig, Field(discriminator="name")]


class ScheduleConfig(Section):
    """Linear warm-up, then a cosine, updated at every step."""

    warmup_epochs: float = Field(default=10, ge=0)
    """Epochs of linear warm-up, lr·(step+1)/warm-up steps. Source: docs/sources.md#warmup."""

    warmup_start_factor: float = Field(default=0.0, ge=0, le=1)
    """Learning rate at the start of the warm-up, as a fraction of the peak. Source: docs/sources.md#warmup (0),
    docs/sources.md#ijepa-optimizer (0.2)."""

    final_lr_factor: float = Field(default=0.001, ge=0, le=1)
    """Learning rate of the last step, as a fraction of the peak. Source: docs/sources.md#final-lr."""
