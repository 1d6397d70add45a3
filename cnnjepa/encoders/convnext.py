"""The trunk of a torchvision ConvNeXt, up to its last feature map.

Parameter names are torchvision's (`features.…`).
"""

import torch
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt, LayerNorm2d

from cnnjepa.randomness import key
from cnnjepa.schemas import ConvNeXtConfig

_BLOCKS = {"convnext_tiny": (3, 3, 9, 3), "convnext_small": (3, 3, 27, 3)}


class ConvNeXtTrunk(ConvNeXt):  # type: ignore[misc]
    """images [B, 3, H, W] → features [B, C, H/32, W/32]."""

    def __init__(self, config: ConvNeXtConfig) -> None:
        widths = [round(96 * config.width) * 2**stage for stage in range(4)]
        following = [*widths[1:], None]
        stages = [
            CNBlockConfig(before, after, count)
            for before, after, count in zip(widths, following, _BLOCKS[config.arch], strict=True)
        ]
        super().__init__(stages, stochastic_depth_prob=0.0)
        for module in self.modules():  # of probability 0, which still draws; and cells are no samples
            for name, child in list(module.named_children()):
                if type(child).__name__ == "StochasticDepth":
                    setattr(module, name, nn.Identity())
        self.avgpool = self.classifier = nn.Identity()
        self.feature_dim: int = widths[-1]
        """C, channels of the features."""
        self.total_stride = config.total_stride
        """Pixels a side of a cell of the features."""
        self.stage_dims = tuple(widths)
        """Channels of every stage's map; a stage halves the sides of the one before."""

    def forward(self, x: Tensor) -> Tensor:
        """The last feature map; see the class."""
        features: Tensor = self.features(x)
        return features

    def stage_maps(self, x: Tensor) -> list[Tensor]:
        """The map of every stage, the last feature map last."""
        maps: list[Tensor] = []
        for number, layer in enumerate(self.features):  # stem, stage, (downsampling, stage) three times
            x = layer(x)
            if number % 2:
                maps.append(x)
        return maps

    def stage_norm(self, stage: int) -> nn.Module:
        """A norm as the network's own, for the map of `stage` (negative: from the last)."""
        return LayerNorm2d(self.stage_dims[stage], eps=1e-6)


def build_convnext(config: ConvNeXtConfig, seed: int) -> ConvNeXtTrunk:
    """A trunk with random weights, a function of (config, seed) alone. Parameters are float32, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, "encoder_init") >> 1)
        return ConvNeXtTrunk(config)
