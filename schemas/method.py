"""What is learned, and from what: one arm a method."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from cnnjepa.schemas.base import Section
from cnnjepa.schemas.ema import EMAConfig
from cnnjepa.schemas.joint_embedding import BYOLConfig, LeJEPAConfig, SimCLRConfig, VICRegConfig
from cnnjepa.schemas.masked_modelling import IJEPAConfig, SparKConfig
from cnnjepa.schemas.masking import MaskingConfig, MixedMasking
from cnnjepa.schemas.predictor import PredictorConfig
from cnnjepa.schemas.views import PLAIN, ViewConfig


class LossConfig(Section):
    """How prediction and target are compared at target cells; mean over all target cells of the global batch."""

    name: Literal["smooth_l1", "l2", "cosine"] = "smooth_l1"
    """`smooth_l1` (β = 1) and `l2` (½ squared distance) are summed over channels, `cosine` is 1 − cos. On unit vectors
    all three agree (docs/method.md). Source: docs/sources.md#loss."""

    normalized: bool = True
    """Scale both vectors to unit length over channels first; `cosine` is scale-free, so it
    requires true. Source: docs/sources.md#loss."""

    @model_validator(mode="after")
    def _cosine_is_normalized(self) -> Self:
        if self.name == "cosine" and not self.normalized:
            raise ValueError(
                "loss.name=cosine compares directions only, so loss.normalized must be true; "
                "for an unnormalised loss choose l2 or smooth_l1"
            )
        return self


class _OneView(Section):
    """Methods that see one crop of an image, its colours untouched."""

    @property
    def views(self) -> tuple[ViewConfig, ...]:
        """The colours of every image's views, in order."""
        return (PLAIN,)


class CNNJEPAConfig(_OneView):
    """Predict the target encoder's features at masked cells from the visible ones (arXiv 2408.07514)."""

    OWN_FIELDS: ClassVar[tuple[str, ...]] = ("predictor", "masking", "ema", "loss")

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


class SupervisedConfig(_OneView):
    """A linear classifier on pooled features, trained together with the encoder on the labels: the ceiling. It learns
    from the training images that the probes do not hold out (`probe.held_out_fraction`, `probe.split_seed`)."""

    name: Literal["supervised"] = "supervised"
    """Which method this section configures."""


class RandomInitConfig(_OneView):
    """No training: random weights, batch-norm statistics calibrated on training images. The floor."""

    name: Literal["random_init"] = "random_init"
    """Which method this section configures."""


MethodConfig = Annotated[
    CNNJEPAConfig
    | SimCLRConfig
    | BYOLConfig
    | VICRegConfig
    | IJEPAConfig
    | SparKConfig
    | LeJEPAConfig
    | SupervisedConfig
    | RandomInitConfig,
    Field(discriminator="name"),
]
