"""Configuration: frozen Pydantic models, preset files, and the conversion of text to a config.

This package imports neither the engine nor torch, so that `cnnjepa --help` and config errors appear at once. A name is
imported when it is used: building all models takes a third of a second, and a wrong path is refused before that.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_HOMES = {
    "augmentation": ("AugmentationConfig",),
    "config": ("PretrainConfig",),
    "data": (
        "DataConfig",
        "FolderData",
        "HDF5Data",
        "HuggingFaceData",
        "SyntheticData",
        "TorchvisionData",
    ),
    "ema": ("EMAConfig",),
    "encoder": (
        "AnyEncoderConfig",
        "ConvNeXtConfig",
        "CustomEncoderConfig",
        "EncoderConfig",
        "ViTConfig",
    ),
    "errors": ("ConfigError",),
    "hashing": (
        "pretrain_hash",
        "probe_hash",
    ),
    "joint_embedding": (
        "BYOLConfig",
        "LeJEPAConfig",
        "SimCLRConfig",
        "VICRegConfig",
    ),
    "load": (
        "load_config",
        "preset_names",
        "read_config",
        "with_sections",
    ),
    "masked_modelling": (
        "IJEPAConfig",
        "SparKConfig",
    ),
    "masking": (
        "BlockMasking",
        "IJEPAMasking",
        "MaskingConfig",
        "MixedMasking",
        "MultiBlockMasking",
        "RandomMasking",
    ),
    "method": (
        "CNNJEPAConfig",
        "LossConfig",
        "MethodConfig",
        "RandomInitConfig",
        "SupervisedConfig",
    ),
    "optimization": (
        "AdamWConfig",
        "LARSConfig",
        "OptimizerConfig",
        "ScheduleConfig",
    ),
    "predictor": ("PredictorConfig",),
    "probe": ("ProbeConfig",),
    "result": (
        "ContinuedRun",
        "Cost",
        "Diagnostics",
        "Floors",
        "ProbedSet",
        "ProbeFigures",
        "Probes",
        "Selection",
        "TrialResult",
        "WarmStart",
    ),
    "runtime": ("RuntimeConfig",),
    "views": (
        "View",
        "ViewConfig",
    ),
}
"""Module of every name."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        for module, names in _HOMES.items():
            if name in names:
                found = getattr(import_module(f"{__name__}.{module}"), name)
                globals()[name] = found
                return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
