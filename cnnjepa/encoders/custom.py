"""User-defined networks as backbones."""

import importlib
import os
import sys
from typing import Any

import torch
from torch import Tensor, nn

from cnnjepa.randomness import key
from cnnjepa.schemas import ConfigError, CustomEncoderConfig
from cnnjepa.schemas.encoder import OwnEncoderSection
from cnnjepa.schemas.extension import extension_of
from cnnjepa.schemas.extent import Extent, as_yaml, height_width


class CustomBackbone(nn.Module):
    """Backbone around a user's `network`: images [B, K, H, W] → features [B, C, H/s, W/s]."""

    def __init__(self, network: nn.Module, feature_dim: int, total_stride: int) -> None:
        super().__init__()
        self.body = network
        self.feature_dim, self.total_stride = feature_dim, total_stride

    def forward(self, x: Tensor) -> Tensor:
        """Return the feature map; see the class."""
        features: Tensor = self.body(x)
        return features


def load_network(named: str, *arguments: Any) -> nn.Module:
    """Create an instance of the class `package.module:Name`, which may also be in the working directory. Raises
    ConfigError if it cannot be imported or created."""
    module, _, name = named.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        made = getattr(importlib.import_module(module), name)(*arguments)
    except Exception as error:  # the user's code may raise anything; --debug shows where
        raise ConfigError(
            f"encoder {named}: {_said(error)}; give package.module:Name of a torch module that is made without "
            "arguments"
        ) from error
    if not isinstance(made, nn.Module):
        raise ConfigError(f"encoder {named} is a {type(made).__name__}, not a torch module")
    return made


def build_custom(config: CustomEncoderConfig | OwnEncoderSection, seed: int, channels: int = 3) -> CustomBackbone:
    """Build the user's network with torch's generator seeded by `seed`. Raises ConfigError if its feature map does not
    match the stated total stride."""
    own = extension_of(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, "encoder_init") >> 1)
        takes_section = own is not None and hasattr(own.implementation, "Config")
        network = load_network(config.own_network, *([config] if takes_section else []))
    dim = feature_dim_of(network, config.total_stride, config.own_network, channels)
    return CustomBackbone(network, dim, config.total_stride)


@torch.no_grad()
def features_of(network: nn.Module, size: Extent, named: str, channels: int = 3) -> object:
    """Return the network's output for an image of this size, in evaluation mode. Raises ConfigError if the network does
    not accept such an image."""
    training, shape = network.training, [1, channels, *height_width(size)]
    try:
        return network.eval()(torch.zeros(shape))
    except Exception as error:
        raise ConfigError(
            f"encoder {named}: it fails on an image {shape} ({_said(error)}); an encoder takes "
            f"images [B, {channels}, H, W] in float32 (data.channels {channels})"
        ) from error
    finally:
        network.train(training)


def _said(error: Exception) -> str:
    """Return the first line of an error from the user's code, with the error's class if the line alone says too
    little."""
    line = next(iter(str(error).splitlines()), "")
    return line if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {line}".rstrip(": ")


def feature_dim_of(network: nn.Module, stride: int, named: str, channels: int = 3) -> int:
    """Return the number of channels of the features. Raises ConfigError if an image whose side is two strides does not
    give two cells per side."""
    features = features_of(network, 2 * stride, named, channels)
    shape = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
    if not isinstance(features, Tensor) or features.dim() != 4 or list(features.shape[2:]) != [2, 2]:
        raise ConfigError(
            f"encoder {named}: images of {2 * stride} px must give features [1, C, 2, 2] at total stride {stride}; "
            f"they give {shape}. Leave out pooling and classifier, and state the stride of the last feature map"
        )
    return int(features.shape[1])


def refuse_other_grid(backbone: CustomBackbone, size: Extent, named: str, channels: int) -> None:
    """Raise ConfigError if images of this size do not give one feature per cell. Needed for rectangles only:
    `feature_dim_of` has seen a square."""
    features = features_of(backbone, size, named, channels)
    wanted = [side // backbone.total_stride for side in height_width(size)]
    if not isinstance(features, Tensor) or list(features.shape[2:]) != wanted:
        shape = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ConfigError(
            f"encoder {named}: images of data.image_size={as_yaml(size)} must give features [1, C, {wanted[0]}, "
            f"{wanted[1]}]; they give {shape}. An encoder of rectangles keeps rows and columns apart"
        )
