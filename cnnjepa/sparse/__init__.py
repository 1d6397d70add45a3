"""Context encoders that give the same numbers, computed on visible patches only (packed) or densely (masked)."""

from typing import Any

from torch import nn

from cnnjepa.sparse.masked import MaskedEncoder
from cnnjepa.sparse.packed import PackedEncoder

ContextEncoder = PackedEncoder | MaskedEncoder


def context_encoder(backbone: nn.Module, encoder: Any) -> ContextEncoder:
    """Return an encoder that computes `backbone` on visible patches, with the config's `encoder.backend`."""
    return PackedEncoder(backbone) if encoder.backend == "packed" else MaskedEncoder(backbone)


__all__ = ["ContextEncoder", "MaskedEncoder", "PackedEncoder", "context_encoder"]
