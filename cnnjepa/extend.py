"""The public classes and functions for user-defined methods, encoders, masking strategies and data sources."""

from cnnjepa.data import ImageSource
from cnnjepa.encoders import Trunk
from cnnjepa.masks import Masks, sample_masks
from cnnjepa.masks.strategy import MaskingStrategy
from cnnjepa.methods import CNNJEPA, Method, Pass, StepDraw, StepLoss
from cnnjepa.methods.following import follow
from cnnjepa.methods.heads import mlp
from cnnjepa.methods.loss import cell_loss
from cnnjepa.methods.pooled import full_precision, pooled
from cnnjepa.methods.predictor import Predictor
from cnnjepa.methods.vicreg import VICReg, vicreg_terms
from cnnjepa.randomness import key, uniform, uniforms
from cnnjepa.schemas import CNNJEPAConfig, EMAConfig, MaskingConfig, MixedMasking, PretrainConfig, RandomMasking
from cnnjepa.schemas.data import DataSection
from cnnjepa.schemas.encoder import OwnEncoderSection
from cnnjepa.schemas.masking import MaskingSection
from cnnjepa.schemas.method_section import MethodSection
from cnnjepa.sparse import ContextEncoder, context_encoder

__all__ = [
    "CNNJEPA",
    "CNNJEPAConfig",
    "ContextEncoder",
    "DataSection",
    "EMAConfig",
    "ImageSource",
    "MaskingConfig",
    "MaskingSection",
    "MaskingStrategy",
    "Masks",
    "Method",
    "MethodSection",
    "MixedMasking",
    "OwnEncoderSection",
    "Pass",
    "Predictor",
    "PretrainConfig",
    "RandomMasking",
    "StepDraw",
    "StepLoss",
    "Trunk",
    "VICReg",
    "cell_loss",
    "context_encoder",
    "follow",
    "full_precision",
    "key",
    "mlp",
    "pooled",
    "sample_masks",
    "uniform",
    "uniforms",
    "vicreg_terms",
]
