"""Networks without classifier: torchvision's residual ones at the stem, width and depth asked for; transformers."""

from typing import TYPE_CHECKING, Union

from cnnjepa.encoders.trunk import ResNetTrunk, build_resnet
from cnnjepa.schemas import AnyEncoderConfig, ViTConfig

if TYPE_CHECKING:
    from cnnjepa.encoders.vit import ViTTrunk

Trunk = Union[ResNetTrunk, "ViTTrunk"]


def build_trunk(config: AnyEncoderConfig, seed: int) -> Trunk:
    """A trunk with random weights, a function of (config, seed) alone. Parameters are float32, on the CPU. Raises
    ConfigError for a transformer where timm is not installed."""
    if isinstance(config, ViTConfig):
        from cnnjepa.encoders.vit import build_vit

        return build_vit(config, seed)
    return build_resnet(config, seed)


__all__ = ["ResNetTrunk", "Trunk", "build_trunk"]
