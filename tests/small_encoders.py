"""An encoder of 20,000 parameters, a config with it, and weights for it."""

from typing import Any

import torch
from torch import Tensor

from cnnjepa.encoders import build_backbone
from cnnjepa.schemas import EncoderConfig, PretrainConfig, load_config

SMALL = EncoderConfig(arch="resnet18", stem="small", stages=3, width=0.125)


def weights(seed: int = 1, encoder: Any = SMALL, channels: int = 3) -> dict[str, Tensor]:
    """Tensors of an encoder whose batch norms have statistics of their own."""
    state = dict(build_backbone(encoder, seed, channels).state_dict())
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(value.shape, generator=generator) if "running" in name else value
        for name, value in state.items()
        if "num_batches" not in name
    }


def small(*overrides: str) -> PretrainConfig:
    """The preset `smoke` with an encoder of 20,000 parameters."""
    return load_config("smoke", overrides=["stem=small", "stages=3", "width=0.125", *overrides])
