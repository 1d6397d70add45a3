"""Context encoders: the same numbers, computed on visible patches only (packed) or densely (masked)."""

from cnnjepa.sparse.masked import MaskedEncoder
from cnnjepa.sparse.packed import PackedEncoder

ContextEncoder = PackedEncoder | MaskedEncoder

__all__ = ["ContextEncoder", "MaskedEncoder", "PackedEncoder"]
