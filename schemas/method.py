"""The method CNN-JEPA: predictor, masking, EMA and loss."""

from typing import Literal, Self

from pydantic import Field, model_validator

from cnnjepa.schemas.base import Section
from cnnjepa.schemas.masking import MaskingConfig, MixedMasking
from cnnjepa.schemas.predictor import PredictorConfig


class EMAConfig(Section):
    """The target encoder's momentum: cosine from `start` to `end`, applied before the forward pass."""

    start: float = Field(default=0.996, ge=0, le=1)
    """Momentum at the first update. Source: paper IV-C, 0.996."""

    end: float = Field(default=1.0, ge=0, le=1)
    """Momentum at the last update. Source: paper IV-C, 1.0."""

    update: Literal["per_epoch", "per_step"] = "per_epoch"
    """Whether the momentum changes once an epoch (the authors' code: it is 1 throughout the last epoch) or
    every step. The average itself is taken every step in both."""

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.end < self.start:
            raise ValueError(f"ema.end {self.end:g} is below ema.start {self.start:g}; the momentum must not fall")
        return self


class LossConfig(Section):
    """How prediction and target are compared at target cells; mean over all target cells of the global batch."""

    name: Literal["smooth_l1", "l2", "cosine"] = "smooth_l1"
    """`smooth_l1` (β = 1) and `l2` (½ squared distance) are summed over channels, `cosine` is 1 − cos. Source:
    paper III says L2, the authors' code uses smooth-L1; on unit vectors all three agree (see docs/method.md)."""

    normalized: bool = True
    """Whether both vectors are scaled to unit length over channels first. Source: the authors' code, true.
    `cosine` is scale-free, so it requires true."""

    @model_validator(mode="after")
    def _cosine_is_normalized(self) -> Self:
        if self.name == "cosine" and not self.normalized:
            raise ValueError(
                "loss.name=cosine compares directions only, so loss.normalized must be true; "
                "for an unnormalised loss choose l2 or smooth_l1"
            )
        return self


class CNNJEPAConfig(Section):
    """Predict the target encoder's features at masked cells from the visible ones (arXiv 2408.07514)."""

    name: Literal["cnnjepa"] = "cnnjepa"
    """Which method this section configures."""

    predictor: PredictorConfig = PredictorConfig()
    """The convolutional predictor."""

    masking: MaskingConfig = Field(default=MixedMasking(), discriminator="strategy")
    """Which cells are context and which are targets."""

    ema: EMAConfig = EMAConfig()
    """The target encoder's moving average."""

    loss: LossConfig = LossConfig()
    """The comparison of prediction and target."""
