"""The public classes and functions for user-defined methods, encoders, masking strategies, data sources, augmentations,
probe metrics and evaluation tasks."""

from cnnjepa.data import ImageSource
from cnnjepa.data.augmentation import Augmentation, ImageDraws
from cnnjepa.encoders import Backbone
from cnnjepa.evaluation.subject import Subject
from cnnjepa.evaluation.task import Outcome, Task
from cnnjepa.masks import Masks, sample_masks
from cnnjepa.masks.strategy import MaskingStrategy
from cnnjepa.methods import CNNJEPA, Method, Pass, StepDraw, StepLoss
from cnnjepa.methods.cell_loss import cell_loss
from cnnjepa.methods.ema import follow
from cnnjepa.methods.loss_precision import full_precision
from cnnjepa.methods.mlp_head import mlp
from cnnjepa.methods.pooled_features import pooled
from cnnjepa.methods.predictor import Predictor
from cnnjepa.methods.vicreg import VICReg, vicreg_terms
from cnnjepa.probes.metric import ProbedFeatures, ProbeMetric
from cnnjepa.randomness import key, uniform, uniforms
from cnnjepa.schemas import CNNJEPAConfig, EMAConfig, MaskingConfig, MixedMasking, PretrainConfig, RandomMasking
from cnnjepa.schemas.augmentation import AugmentationSection
from cnnjepa.schemas.data_section import DataSection
from cnnjepa.schemas.encoder import OwnEncoderSection
from cnnjepa.schemas.evaluation import TaskSection
from cnnjepa.schemas.evaluation_result import EvaluationFigure
from cnnjepa.schemas.extent import Extent, height_width
from cnnjepa.schemas.masking import MaskingSection
from cnnjepa.schemas.method_section import MethodSection
from cnnjepa.schemas.metric import MetricSection
from cnnjepa.sparse import ContextEncoder, context_encoder

Trunk = Backbone  # deprecated name

__all__ = [
    "CNNJEPA",
    "Augmentation",
    "AugmentationSection",
    "Backbone",
    "CNNJEPAConfig",
    "ContextEncoder",
    "DataSection",
    "EMAConfig",
    "EvaluationFigure",
    "Extent",
    "ImageDraws",
    "ImageSource",
    "MaskingConfig",
    "MaskingSection",
    "MaskingStrategy",
    "Masks",
    "Method",
    "MethodSection",
    "MetricSection",
    "MixedMasking",
    "Outcome",
    "OwnEncoderSection",
    "Pass",
    "Predictor",
    "PretrainConfig",
    "ProbeMetric",
    "ProbedFeatures",
    "RandomMasking",
    "StepDraw",
    "StepLoss",
    "Subject",
    "Task",
    "TaskSection",
    "VICReg",
    "cell_loss",
    "context_encoder",
    "follow",
    "full_precision",
    "height_width",
    "key",
    "mlp",
    "pooled",
    "sample_masks",
    "uniform",
    "uniforms",
    "vicreg_terms",
]
