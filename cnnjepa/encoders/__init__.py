"""Networks without a classifier: torchvision's ResNets and ConvNeXts, vision transformers, and user-defined
networks."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Union

from torch import Tensor, nn

from cnnjepa.encoders.convnext import ConvNeXtBackbone
from cnnjepa.encoders.custom import CustomBackbone, build_custom
from cnnjepa.encoders.resnet import ResNetBackbone
from cnnjepa.implementation import implementation_of
from cnnjepa.schemas import AnyEncoderConfig
from cnnjepa.schemas.encoder import IMPLEMENTATIONS
from cnnjepa.schemas.extension import extension_of

if TYPE_CHECKING:
    from cnnjepa.encoders.vit import ViTBackbone

Backbone = Union[ResNetBackbone, ConvNeXtBackbone, CustomBackbone, "ViTBackbone"]


def build_backbone(config: AnyEncoderConfig, seed: int, channels: int = 3) -> Backbone:
    """Build a backbone for images of `channels` channels with random weights, a function of the arguments alone.
    Parameters are float32, on the CPU. Raises ConfigError for a transformer if timm is not installed, and for a
    user-defined network that does not have the stated total stride."""
    build: Any = build_custom if extension_of(config) else implementation_of(config, IMPLEMENTATIONS)
    backbone: Backbone = build(config, seed, channels)
    return backbone


def load_into(backbone: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load the tensors of `cnnjepa.warm_start` into a backbone. The counters of batch norms, on which no figure
    depends, stay as they are."""
    counters = {name: value for name, value in backbone.state_dict().items() if name.endswith("num_batches_tracked")}
    backbone.load_state_dict({**counters, **state})


__all__ = ["Backbone", "ConvNeXtBackbone", "CustomBackbone", "ResNetBackbone", "build_backbone", "load_into"]
