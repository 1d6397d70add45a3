"""CNN-JEPA Bench: pretrain convolutional networks without labels, and measure how good the result is.

Public names are loaded on first use, so that `import cnnjepa` takes no noticeable time.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnjepa.checkout import refuse_broken_links

__version__ = "0.1.0"

refuse_broken_links(Path(__file__).parent)

if TYPE_CHECKING:
    from cnnjepa.errors import RunError as RunError
    from cnnjepa.evaluation.api import evaluate as evaluate
    from cnnjepa.masks import Masks as Masks
    from cnnjepa.masks import sample_masks as sample_masks
    from cnnjepa.methods.cnnjepa import CNNJEPA as CNNJEPA
    from cnnjepa.methods.predictor import Predictor as Predictor
    from cnnjepa.pretrained import load_encoder as load_encoder
    from cnnjepa.sparse import MaskedEncoder as MaskedEncoder
    from cnnjepa.sparse import PackedEncoder as PackedEncoder
    from cnnjepa.training.pretrain import pretrain as pretrain

_HOMES = {
    "CNNJEPA": "cnnjepa.methods.cnnjepa",
    "MaskedEncoder": "cnnjepa.sparse",
    "Masks": "cnnjepa.masks",
    "PackedEncoder": "cnnjepa.sparse",
    "Predictor": "cnnjepa.methods.predictor",
    "RunError": "cnnjepa.errors",
    "evaluate": "cnnjepa.evaluation.api",
    "load_encoder": "cnnjepa.pretrained",
    "pretrain": "cnnjepa.training.pretrain",
    "sample_masks": "cnnjepa.masks",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'cnnjepa' has no attribute {name!r}")
