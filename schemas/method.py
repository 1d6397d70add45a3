"""CNN-JEPA, the upper and lower references (`supervised`, `random_init`), and the registry of all methods."""

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import model_validator

from cnnjepa.schemas.base import Section
from cnnjepa.schemas.ema import EMAConfig
from cnnjepa.schemas.encoder import AnyEncoderConfig, EncoderKind
from cnnjepa.schemas.extension import extensible
from cnnjepa.schemas.extent import Extent, as_text, height_width
from cnnjepa.schemas.joint_embedding import BYOLConfig, LeJEPAConfig, SimCLRConfig, VICRegConfig
from cnnjepa.schemas.masked_modelling import IJEPAConfig, SparKConfig
from cnnjepa.schemas.masking import MaskingConfig, MixedMasking
from cnnjepa.schemas.method_section import MethodSection
from cnnjepa.schemas.predictor import PredictorConfig


class LossConfig(Section):
    """Comparison of prediction and target at target cells; the mean over all target cells of the global batch."""

    name: Literal["smooth_l1", "l2", "cosine"] = "smooth_l1"
    """`smooth_l1` (β = 1) and `l2` (½ squared distance) are summed over channels, `cosine` is 1 − cos. On unit vectors
    all three agree (docs/method.md). Source: docs/sources.md#loss."""

    normalized: bool = True
    """Scale both vectors to unit length over channels first. `cosine` does not depend on scale, so it requires true.
    Source: docs/sources.md#loss."""

    @model_validator(mode="after")
    def _cosine_is_normalized(self) -> Self:
        if self.name == "cosine" and not self.normalized:
            raise ValueError(
                "loss.name=cosine compares directions only, so loss.normalized must be true; "
                "for an unnormalised loss choose l2 or smooth_l1"
            )
        return self


class CNNJEPAConfig(MethodSection):
    """Predict the target encoder's features at masked cells from the visible ones (arXiv 2408.07514)."""

    OWN_FIELDS: ClassVar[tuple[str, ...]] = ("predictor", "masking", "ema", "loss")
    PROBED: ClassVar[Literal["target", "context"]] = "target"
    REFUSED_ENCODERS: ClassVar[dict[EncoderKind, str]] = {"transformer": "hides patches of convolutional networks"}

    name: Literal["cnnjepa"] = "cnnjepa"
    """The method that this section configures."""

    predictor: PredictorConfig = PredictorConfig()
    """The convolutional predictor."""

    masking: MaskingConfig = MixedMasking()
    """The cells that are context and those that are targets."""

    ema: EMAConfig = EMAConfig()
    """The target encoder's moving average."""

    loss: LossConfig = LossConfig()
    """The comparison of prediction and target."""

    def warnings(self, encoder: AnyEncoderConfig, grid: Extent) -> list[str]:
        """Warn about kernels wider than the grid, and about targets that the predictor cannot reach."""
        kernel, found = self.predictor.kernel_size, []
        longer = max(height_width(grid))
        if kernel > 2 * longer - 1:
            found.append(
                f"predictor.kernel_size {kernel} reaches past the {as_text(grid)} grid from every cell; "
                f"weights beyond {2 * longer - 1} only ever see padding"
            )
        if signed := self._signed_targets(encoder):
            found.append(
                f"{signed}, whose features are signed, and the predictor ends in a ReLU: it cannot predict negative "
                "values"
            )
        return found

    def _signed_targets(self, encoder: AnyEncoderConfig) -> str:
        """Return the setting that makes features signed; an empty text if they end in a ReLU, as the predictor does."""
        if self.predictor.projection_dim:
            return f"predictor.projection_dim {self.predictor.projection_dim} ends in a 1x1 convolution"
        return f"encoder.arch={encoder.arch} ends in a sum without ReLU" if encoder.SIGNED_FEATURES else ""


class SupervisedConfig(MethodSection):
    """A linear classifier on pooled features, trained together with the encoder on the labels: the upper reference
    (ceiling). It learns from the training images that the probes do not hold out (`probe.held_out_fraction`,
    `probe.split_seed`)."""

    LEARNS_FROM_LABELS: ClassVar[bool] = True
    PROBE_SETTINGS_IN_TRAINING: ClassVar[tuple[str, ...]] = ("held_out_fraction", "split_seed", "held_out_groups")

    name: Literal["supervised"] = "supervised"
    """The method that this section configures."""


class RandomInitConfig(MethodSection):
    """No training: random weights, batch-norm statistics calibrated on training images. The lower reference (floor)."""

    TRAINS: ClassVar[bool] = False
    PROBE_SETTINGS_IN_TRAINING: ClassVar[tuple[str, ...]] = ("resize",)  # of the images that calibrate the statistics

    name: Literal["random_init"] = "random_init"
    """The method that this section configures."""


IMPLEMENTATIONS: dict[type[MethodSection], str] = {
    CNNJEPAConfig: "cnnjepa.methods.cnnjepa:CNNJEPA",
    SimCLRConfig: "cnnjepa.methods.simclr:SimCLR",
    BYOLConfig: "cnnjepa.methods.byol:BYOL",
    VICRegConfig: "cnnjepa.methods.vicreg:VICReg",
    IJEPAConfig: "cnnjepa.methods.ijepa:IJEPA",
    SparKConfig: "cnnjepa.methods.spark:SparK",
    LeJEPAConfig: "cnnjepa.methods.lejepa:LeJEPA",
    SupervisedConfig: "cnnjepa.methods.supervised:Supervised",
    RandomInitConfig: "cnnjepa.methods.supervised:RandomInit",
}
"""Config class of every method, and the class that trains with it, which is imported when a run needs it."""

if TYPE_CHECKING:
    MethodConfig = MethodSection
else:
    MethodConfig = extensible("method", IMPLEMENTATIONS)
