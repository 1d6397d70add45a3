"""Networks without a classifier: torchvision's ResNets and ConvNeXts, vision transformers, and user-defined
networks."""

from typing import TYPE_CHECKING, Union, assert_never

from cnnjepa.encoders.convnext import ConvNeXtBackbone, build_convnext
from cnnjepa.encoders.custom import CustomBackbone, build_custom
from cnnjepa.encoders.resnet import ResNetBackbone, build_resnet
from cnnjepa.schemas import AnyEncoderConfig, ConvNeXtConfig, CustomEncoderConfig, EncoderConfig, ViTConfig
from cnnjepa.schemas.encoder import OwnEncoderSection

if TYPE_CHECKING:
    from cnnjepa.encoders.vit import ViTBackbone

Backbone = Union[ResNetBackbone, ConvNeXtBackbone, CustomBackbone, "ViTBackbone"]


def build_backbone(config: AnyEncoderConfig, seed: int) -> Backbone:
    """Build a backbone with random weights, a function of (config, seed) alone. Parameters are float32, on the CPU.
    Raises ConfigError for a transformer if timm is not installed, and for a user-defined network that does not have the
    stated total stride."""
    match config:
        case EncoderConfig():
            return build_resnet(config, seed)
        case ConvNeXtConfig():
            return build_convnext(config, seed)
        case CustomEncoderConfig() | OwnEncoderSection():
            return build_custom(config, seed)
        case ViTConfig():
            from cnnjepa.encoders.vit import build_vit

            return build_vit(config, seed)
    assert_never(config)


__all__ = ["Backbone", "ConvNeXtBackbone", "CustomBackbone", "ResNetBackbone", "build_backbone"]
