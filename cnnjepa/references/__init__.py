"""Encoders that a user names: runs, exports, networks of torchvision and timm, presets, and networks of the user."""

from cnnjepa.references.encoder import ReferencedEncoder, stage_maps
from cnnjepa.references.open import open_encoder
from cnnjepa.references.preprocessing import NO_OVERRIDES, Preprocessing, PreprocessingOverrides, images_config
from cnnjepa.references.request import FORMS

__all__ = [
    "FORMS",
    "NO_OVERRIDES",
    "Preprocessing",
    "PreprocessingOverrides",
    "ReferencedEncoder",
    "images_config",
    "open_encoder",
    "stage_maps",
]
