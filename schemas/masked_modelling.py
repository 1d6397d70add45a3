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
    """Transformer blocks. Source: METHOD, 6."""

    dim: int = Field(default=384, ge=16)
    """Channels; a multiple of four times the encoder's heads. Source: METHOD, 384."""


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
    """The target encoder's moving average. Source: METHOD, 0.996 to 1, every step."""

    @property
    def views(self) -> tuple[ViewConfig, ...]:
        """One crop, its colours untouched."""
        return (PLAIN,)


class SparKConfig(Section):
    """Reconstruct the pixels of hidden patches from a sparse CNN's features of the visible ones (arXiv 2301.03580).
    The decoder sees the last feature map only; the original's connections from earlier stages are not made."""

    OWN_FIELDS: ClassVar[tuple[str, ...]] = ("masking",)

    name: Literal["spark"] = "spark"
    """Which method this section configures."""

    masking: RandomMasking = RandomMasking()
    """Which cells are hidden. Source: SparK, 0.6 at random."""

    decoder_dim: int = Field(default=512, ge=16)
    """Channels of the decoder before the first upsampling; every further one halves them, to no fewer than 16.
    Source: SparK's light decoder, 512 by default."""

    @property
    def views(self) -> tuple[ViewConfig, ...]:
        """One crop, its colours untouched."""
        return (PLAIN,)
