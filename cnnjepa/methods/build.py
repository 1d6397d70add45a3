"""From a config to a method with initialised weights."""

from typing import assert_never

import torch
from torch import nn

from cnnjepa.encoders import Trunk, build_trunk
from cnnjepa.methods.byol import BYOL
from cnnjepa.methods.cnnjepa import CNNJEPA
from cnnjepa.methods.heads import mlp
from cnnjepa.methods.lejepa import LeJEPA
from cnnjepa.methods.method import Method
from cnnjepa.methods.predictor import Predictor
from cnnjepa.methods.simclr import SimCLR
from cnnjepa.methods.spark import SparK
from cnnjepa.methods.supervised import RandomInit, Supervised
from cnnjepa.methods.vicreg import VICReg
from cnnjepa.randomness import key
from cnnjepa.schemas import (
    BYOLConfig,
    CNNJEPAConfig,
    IJEPAConfig,
    LeJEPAConfig,
    PretrainConfig,
    RandomInitConfig,
    SimCLRConfig,
    SparKConfig,
    SupervisedConfig,
    VICRegConfig,
    ViTConfig,
)
from cnnjepa.sparse import ContextEncoder, MaskedEncoder, PackedEncoder

# Classes of a supervised head that is only to be counted or timed, where no data are open. Assumption: it is small
# beside the encoder.
_CLASSES = 100


def build_method(config: PretrainConfig, classes: int = _CLASSES) -> Method:
    """The method on the CPU, float32; its weights are a function of the config and runtime.seed alone. `classes` of the
    data set matter to `supervised`."""
    trunk = build_trunk(config.encoder, config.runtime.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(config.runtime.seed, "method_init") >> 1)
        return _around(trunk, config, classes)


def _around(trunk: Trunk, config: PretrainConfig, classes: int) -> Method:
    method, dim = config.method, trunk.feature_dim
    match method:
        case CNNJEPAConfig():
            width = method.predictor.projection_dim
            projection = nn.Conv2d(dim, width, 1) if width else None
            predictor = Predictor(width or dim, method.predictor)
            return CNNJEPA(_sparse(trunk, config), predictor, dim, method.masking, method.ema, method.loss, projection)
        case SimCLRConfig():
            projector = mlp(dim, method.hidden_dim, method.output_dim, norm_last=True)
            return SimCLR(trunk, dim, projector, method.temperature)
        case BYOLConfig():
            projector = mlp(dim, method.hidden_dim, method.output_dim)
            return BYOL(trunk, dim, projector, mlp(method.output_dim, method.predictor_hidden_dim, method.output_dim))
        case VICRegConfig():
            projector = mlp(dim, method.hidden_dim, method.hidden_dim, method.output_dim)
            return VICReg(trunk, dim, projector, method)
        case LeJEPAConfig():
            projector = mlp(dim, method.hidden_dim, method.hidden_dim, method.output_dim)
            return LeJEPA(trunk, dim, projector, method)
        case SparKConfig():
            return SparK(_sparse(trunk, config), method)
        case IJEPAConfig():
            from cnnjepa.encoders.vit import ViTTrunk
            from cnnjepa.methods.ijepa import IJEPA

            assert isinstance(trunk, ViTTrunk)
            return IJEPA(trunk, method)
        case SupervisedConfig():
            return Supervised(trunk, dim, classes)
        case RandomInitConfig():
            return RandomInit(trunk, dim)
    assert_never(method)


def _sparse(trunk: Trunk, config: PretrainConfig) -> ContextEncoder:
    assert not isinstance(config.encoder, ViTConfig)
    return PackedEncoder(trunk) if config.encoder.backend == "packed" else MaskedEncoder(trunk)
