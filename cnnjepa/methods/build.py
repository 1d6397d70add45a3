"""From a config to a method with initialised weights."""

import torch
from torch import nn

from cnnjepa.encoders import build_trunk
from cnnjepa.methods.cnnjepa import CNNJEPA
from cnnjepa.methods.predictor import Predictor
from cnnjepa.randomness import key
from cnnjepa.schemas import PretrainConfig
from cnnjepa.sparse import MaskedEncoder, PackedEncoder


def build_method(config: PretrainConfig) -> CNNJEPA:
    """The method on the CPU, float32; its weights are a function of the config and runtime.seed alone."""
    method = config.method
    trunk = build_trunk(config.encoder, config.runtime.seed)
    dim = trunk.feature_dim
    encoder = PackedEncoder(trunk) if config.encoder.backend == "packed" else MaskedEncoder(trunk)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(config.runtime.seed, "method_init") >> 1)
        width = method.predictor.projection_dim
        projection = nn.Conv2d(dim, width, 1) if width else None
        predictor = Predictor(width or dim, method.predictor)
        return CNNJEPA(encoder, predictor, dim, method.masking, method.ema, method.loss, projection)
