"""Methods beside CNN-JEPA that learn from hidden patches: I-JEPA and SparK."""

from typing import ClassVar, Literal

from pydantic import Field

from cnnjepa.schemas.base import Section
from cnnjepa.schemas.ema import StepwiseEMAConfig
from cnnjepa.schemas.masking import IJEPAMasking, RandomMasking
from cnnjepa.schemas.views import PLAIN, ViewConfig


class TransformerPredictorConfig(Section):
    """I-JEPA's predictor: a narrow vision transformer on context tokens and position-marked mask tokens."""

    depth: int = Field(default=6, ge=1, le=32)
    """Transformer blocks. Source: docs/sources.md#ijepa-predictor."""

    dim: int = Field(default=384, ge=16)
    """Channels; a multiple of four times the encoder's heads. Source: docs/sources.md#ijepa-predictor."""


class IJEPAConfig(Section):
    """Predict a moving average's features of several blocks from one context block, with vision transformers
    (arXiv 2301.08243)."""

    OWN_FIELDS: ClassVar[tuple[str, ...]] = ("predictor", "masking", "ema")

    name: Literal["ijepa"] = "ijepa"
    """Which method this section configures."""

    predictor: TransformerPredictorConfig = TransformerPredictorConfig()
    """The transformer predictor."""

    masking: IJEPAMasking = IJEPAMasking()
    """Context and target blocks."""

    ema: StepwiseEMAConfig = StepwiseEMAConfig()
    """The target encoder's moving average. Source: docs/sources.md#ijepa-ema."""

    @property
    def views(self) -> tuple[ViewConfig, ...]:
        """One crop, its colours untouched."""
        return (PLAIN,)


class SparKConfig(Section):
    """Reconstruct the pixels of hidden patches from a sparse CNN's features of the visible ones, taken after every
    stage (arXiv 2301.03580)."""

    OWN_FIELDS: ClassVar[tuple[str, ...]] = ("masking",)

    name: Literal["spark"] = "spark"
    """Which method this section configures."""

    masking: RandomMasking = RandomMasking()
    """Which cells are hidden. Source: docs/sources.md#spark-masks."""

    decoder_dim: int | None = Field(default=None, ge=4)
    """Channels of the decoder before the first upsampling; each halves them, so it is a multiple of the encoder's total
    stride. None: three eighths of the encoder's channels, at least 4·stride. Source: docs/sources.md#spark-decoder
    (768 for ResNet-50's 2048); the share for narrower encoders is ours, so that the decoder does not outweigh them."""

    sync_batch_norm: bool = True
    """Compute batch-norm statistics over the global batch, as two-view methods do. Source:
    docs/sources.md#spark-batch-norm."""

    @property
    def views(self) -> tuple[ViewConfig, ...]:
        """One crop, its colours untouched."""
        return (PLAIN,)
