"""Methods other than CNN-JEPA that learn from hidden patches: I-JEPA and SparK."""

from typing import ClassVar, Literal

from pydantic import Field

from cnnjepa.schemas.base import Section
from cnnjepa.schemas.ema import StepwiseEMAConfig
from cnnjepa.schemas.encoder import AnyEncoderConfig, EncoderKind
from cnnjepa.schemas.masking import IJEPAMasking, RandomMasking
from cnnjepa.schemas.method_section import MethodSection


class TransformerPredictorConfig(Section):
    """I-JEPA's predictor: a narrow vision transformer on context tokens and on mask tokens with positions."""

    depth: int = Field(default=6, ge=1, le=32)
    """Number of transformer blocks. Source: docs/sources.md#ijepa-predictor."""

    dim: int = Field(default=384, ge=16)
    """Number of channels; a multiple of four times the encoder's heads. Source: docs/sources.md#ijepa-predictor."""


class IJEPAConfig(MethodSection):
    """Predict the moving-average features of several blocks from one context block, with vision transformers (arXiv
    2301.08243)."""

    OWN_FIELDS: ClassVar[tuple[str, ...]] = ("predictor", "masking", "ema")
    PROBED: ClassVar[Literal["target", "context"]] = "target"
    REFUSED_ENCODERS: ClassVar[dict[EncoderKind, str]] = {
        "convolutional": "drops hidden tokens, which only transformers have",
        "custom": "drops hidden tokens, which only transformers have",
    }

    name: Literal["ijepa"] = "ijepa"
    """The method that this section configures."""

    predictor: TransformerPredictorConfig = TransformerPredictorConfig()
    """The transformer predictor."""

    masking: IJEPAMasking = IJEPAMasking()
    """Context and target blocks."""

    ema: StepwiseEMAConfig = StepwiseEMAConfig()
    """The target encoder's moving average. Source: docs/sources.md#ijepa-ema."""

    def check_encoder(self, encoder: AnyEncoderConfig) -> None:
        """Raise ValueError for a network that is not a transformer, and for a predictor width that its heads do not
        divide."""
        super().check_encoder(encoder)
        heads = 4 * encoder.attention_heads
        if self.predictor.dim % heads:
            lower = max(1, self.predictor.dim // heads) * heads
            raise ValueError(
                f"predictor.dim {self.predictor.dim} is not a multiple of 4 x {encoder.attention_heads}, the heads of "
                f"{encoder.arch}; the nearest are {lower} and {lower + heads}"
            )


class SparKConfig(MethodSection):
    """Reconstruct the pixels of hidden patches from a sparse CNN's features of the visible ones, taken after every
    stage (arXiv 2301.03580)."""

    OWN_FIELDS: ClassVar[tuple[str, ...]] = ("masking",)
    REFUSED_ENCODERS: ClassVar[dict[EncoderKind, str]] = {
        "transformer": "hides patches of convolutional networks",
        "custom": "takes a map after every stage, and a network of your own has no stages that it knows of",
    }

    name: Literal["spark"] = "spark"
    """The method that this section configures."""

    masking: RandomMasking = RandomMasking()
    """The cells that are hidden. Source: docs/sources.md#spark-masks."""

    decoder_dim: int | None = Field(default=None, ge=4)
    """Channels of the decoder before the first upsampling. Each upsampling halves them, so the value must be a multiple
    of the encoder's total stride. None: three eighths of the encoder's channels, at least 4·stride. Source:
    docs/sources.md#spark-decoder (768 for ResNet-50's 2048); the fraction for narrower encoders is ours, so that the
    decoder is not larger than the encoder."""

    sync_batch_norm: bool = True
    """Compute batch-norm statistics over the global batch, as in two-view methods. Source:
    docs/sources.md#spark-batch-norm."""

    def check_encoder(self, encoder: AnyEncoderConfig) -> None:
        """Raise ValueError for networks without stages, and for a decoder whose channels cannot be halved often
        enough."""
        super().check_encoder(encoder)
        stride, width = encoder.total_stride, self.decoder_dim
        if width is not None and width % stride:
            lower = width // stride * stride
            nearest = f"{lower} or {lower + stride}" if lower else str(stride)
            raise ValueError(
                f"method.decoder_dim {width} is not a multiple of the encoder's total stride {stride} "
                f"({encoder.stride_in_words}), so it cannot be halved at each of {stride.bit_length() - 1} "
                f"upsamplings; the nearest valid value is {nearest}"
            )
