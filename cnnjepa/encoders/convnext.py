"""The backbone of a torchvision ConvNeXt, up to its last feature map.

Parameter names are torchvision's (`features.…`).
"""

import torch
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt, LayerNorm2d

from cnnjepa.randomness import key
from cnnjepa.schemas import ConvNeXtConfig

_BLOCKS = {"convnext_tiny": (3, 3, 9, 3), "convnext_small": (3, 3, 27, 3)}


class ConvNeXtBackbone(ConvNeXt):  # type: ignore[misc]
    """ConvNeXt backbone: images [B, K, H, W] of K `channels` → features [B, C, H/32, W/32]."""

    def __init__(self, config: ConvNeXtConfig, channels: int = 3) -> None:
        widths = [round(96 * config.width) * 2**stage for stage in range(4)]
        following = [*widths[1:], None]
        stages = [
            CNBlockConfig(before, after, count)
            for before, after, count in zip(widths, following, _BLOCKS[config.arch], strict=True)
        ]
        super().__init__(stages, stochastic_depth_prob=0.0)
        for module in self.modules():  # their probability is 0, but they still draw; and packed cells are not samples
            for name, child in list(module.named_children()):
                if type(child).__name__ == "StochasticDepth":
                    setattr(module, name, nn.Identity())
        if channels != 3:
            patches = nn.Conv2d(channels, widths[0], 4, stride=4)
            nn.init.trunc_normal_(patches.weight, std=0.02)  # torchvision's initialisation
            nn.init.zeros_(patches.bias)  # type: ignore[arg-type]
            self.features[0][0] = patches
        self.avgpool = self.classifier = nn.Identity()
        self.feature_dim: int = widths[-1]
        """C, the number of channels of the features."""
        self.total_stride = config.total_stride
        """Side of a feature cell in input pixels."""
        self.stage_dims = tuple(widths)
        """Number of channels of each stage's map. Each stage halves the sides of the previous map."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the last feature map; see the class."""
        features: Tensor = self.features(x)
        return features

    def stage_maps(self, x: Tensor) -> list[Tensor]:
        """Return the map of every stage; the last one is the last feature map."""
        maps: list[Tensor] = []
        for number, layer in enumerate(self.features):  # stem, stage, (downsampling, stage) three times
            x = layer(x)
            if number % 2:
                maps.append(x)
        return maps

    def stage_norm(self, stage: int) -> nn.Module:
        """Return a new norm of the network's own kind for the map of `stage` (negative numbers count from the last)."""
        return LayerNorm2d(self.stage_dims[stage], eps=1e-6)


def build_convnext(config: ConvNeXtConfig, seed: int, channels: int = 3) -> ConvNeXtBackbone:
    """Build a backbone with random weights, a function of the arguments alone. Parameters are float32, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, "encoder_init") >> 1)
        return ConvNeXtBackbone(config, channels)
