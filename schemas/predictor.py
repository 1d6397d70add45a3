"""The predictor: from the context's feature map to the target's, at every cell."""

from typing import Literal

from pydantic import Field, field_validator

from cnnjepa.schemas.base import Section


class PredictorConfig(Section):
    """depth x [convolution kxk → (pointwise 1x1) → batch norm → ReLU] at the encoder's width."""

    depth: int = Field(default=3, ge=1, le=32)
    """Number of layers. Source: docs/sources.md#predictor-layers; the authors' ablation covers 1 to 6."""

    kernel_size: int = Field(default=3, ge=1, le=31)
    """Side of the convolution's kernel in cells, odd. Source: docs/sources.md#predictor-layers; the authors' ablation
    covers 3 to 9."""

    conv: Literal["separable", "dense"] = "separable"
    """`separable`: depthwise kxk, then pointwise 1x1; `dense`: an ordinary kxk convolution (about nine times the
    parameters at k 3). Source: docs/sources.md#predictor-conv."""

    projection_dim: int | None = Field(default=None, ge=8)
    """Width of an optional 1x1 projection head on both feature maps, before the predictor and for the targets;
    None = no head. Source: docs/sources.md#projection-head."""

    @field_validator("kernel_size")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(
                f"must be odd, so that the map keeps its size; the nearest are {value - 1} and {value + 1}"
            )
        return value
