"""Configuration: frozen Pydantic models, preset files, and the conversion of text to a config.

This package imports neither the engine nor torch, so that `cnnjepa --help` and config errors appear at once.
"""

from cnnjepa.schemas.augmentation import AugmentationConfig
from cnnjepa.schemas.config import PretrainConfig
from cnnjepa.schemas.data import (
    DataConfig,
    FolderData,
    HDF5Data,
    HuggingFaceData,
    SyntheticData,
    TorchvisionData,
)
from cnnjepa.schemas.ema import EMAConfig
from cnnjepa.schemas.encoder import (
    AnyEncoderConfig,
    ConvNeXtConfig,
    CustomEncoderConfig,
    EncoderConfig,
    ViTConfig,
)
from cnnjepa.schemas.errors import ConfigError
from cnnjepa.schemas.hashing import pretrain_hash, probe_hash
from cnnjepa.schemas.joint_embedding import BYOLConfig, LeJEPAConfig, SimCLRConfig, VICRegConfig
from cnnjepa.schemas.load import load_config, preset_names, read_config, with_sections
from cnnjepa.schemas.masked_modelling import IJEPAConfig, SparKConfig
from cnnjepa.schemas.masking import (
    BlockMasking,
    IJEPAMasking,
    MaskingConfig,
    MixedMasking,
    MultiBlockMasking,
    RandomMasking,
)
from cnnjepa.schemas.method import CNNJEPAConfig, LossConfig, MethodConfig, RandomInitConfig, SupervisedConfig
from cnnjepa.schemas.optimization import AdamWConfig, LARSConfig, OptimizerConfig, ScheduleConfig
from cnnjepa.schemas.predictor import PredictorConfig
from cnnjepa.schemas.probe import ProbeConfig
from cnnjepa.schemas.result import (
    ContinuedRun,
    Cost,
    Diagnostics,
    Floors,
    ProbedSet,
    ProbeFigures,
    Probes,
    Selection,
    TrialResult,
    WarmStart,
)
from cnnjepa.schemas.runtime import RuntimeConfig
from cnnjepa.schemas.views import View, ViewConfig

__all__ = [
    "AdamWConfig",
    "AnyEncoderConfig",
    "AugmentationConfig",
    "BYOLConfig",
    "BlockMasking",
    "CNNJEPAConfig",
    "ConfigError",
    "ContinuedRun",
    "ConvNeXtConfig",
    "Cost",
    "CustomEncoderConfig",
    "DataConfig",
    "Diagnostics",
    "EMAConfig",
    "EncoderConfig",
    "Floors",
    "FolderData",
    "HDF5Data",
    "HuggingFaceData",
    "IJEPAConfig",
    "IJEPAMasking",
    "LARSConfig",
    "LeJEPAConfig",
    "LossConfig",
    "MaskingConfig",
    "MethodConfig",
    "MixedMasking",
    "MultiBlockMasking",
    "OptimizerConfig",
    "PredictorConfig",
    "PretrainConfig",
    "ProbeConfig",
    "ProbeFigures",
    "ProbedSet",
    "Probes",
    "RandomInitConfig",
    "RandomMasking",
    "RuntimeConfig",
    "ScheduleConfig",
    "Selection",
    "SimCLRConfig",
    "SparKConfig",
    "SupervisedConfig",
    "SyntheticData",
    "TorchvisionData",
    "TrialResult",
    "VICRegConfig",
    "ViTConfig",
    "View",
    "ViewConfig",
    "WarmStart",
    "load_config",
    "preset_names",
    "pretrain_hash",
    "probe_hash",
    "read_config",
    "with_sections",
]
