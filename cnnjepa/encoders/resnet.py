"""The backbone of a torchvision ResNet, up to its last feature map.

Parameter names are torchvision's, so that at width 1, imagenet stem and four stages the weights load into the stock
network (without its classifier).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from cnnjepa.encoders.norm_relu import norm_relu
from cnnjepa.randomness import key
from cnnjepa.schemas.encoder import Arch, EncoderConfig


class _BasicBlock(BasicBlock):  # type: ignore[misc]
    """torchvision's block; norms are computed together with what follows them."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        out = norm_relu(self.bn1, self.relu, self.conv1(x))
        return norm_relu(self.bn2, self.relu, self.conv2(out), _shortcut(self, x))


class _Bottleneck(Bottleneck):  # type: ignore[misc]
    """torchvision's block; norms are computed together with what follows them."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        out = norm_relu(self.bn1, self.relu, self.conv1(x))
        out = norm_relu(self.bn2, self.relu, self.conv2(out))
        return norm_relu(self.bn3, self.relu, self.conv3(out), _shortcut(self, x))


def _shortcut(block: BasicBlock | Bottleneck, x: Tensor) -> Tensor:
    if block.downsample is None:
        return x
    convolution, norm = block.downsample
    return norm_relu(norm, None, convolution(x))


class _Spec(NamedTuple):
    block: type[_BasicBlock] | type[_Bottleneck]
    blocks: tuple[int, int, int, int]
    groups: int = 1
    width_per_group: int = 64


_SPECS: dict[Arch, _Spec] = {
    "resnet18": _Spec(_BasicBlock, (2, 2, 2, 2)),
    "resnet34": _Spec(_BasicBlock, (3, 4, 6, 3)),
    "resnet50": _Spec(_Bottleneck, (3, 4, 6, 3)),
    "resnet101": _Spec(_Bottleneck, (3, 4, 23, 3)),
    "resnet152": _Spec(_Bottleneck, (3, 8, 36, 3)),
    "wide_resnet50_2": _Spec(_Bottleneck, (3, 4, 6, 3), width_per_group=128),
    "resnext50_32x4d": _Spec(_Bottleneck, (3, 4, 6, 3), groups=32, width_per_group=4),
}


class ResNetBackbone(ResNet):  # type: ignore[misc]
    """ResNet backbone: images [B, K, H, W] → features [B, C, H/s, W/s], with s the config's total stride and
    K the number of `channels`.

    Initialised like timm's networks (docs/sources.md#encoder-init): Kaiming normal (fan out), and the last batch norm
    of every residual branch starts at zero.
    """

    def __init__(self, config: EncoderConfig, channels: int = 3) -> None:
        spec = _SPECS[config.arch]
        self._width = config.width
        super().__init__(
            spec.block,
            list(spec.blocks),
            zero_init_residual=True,
            groups=spec.groups,
            width_per_group=spec.width_per_group,
        )
        stem = self._channels(64)
        kernel, stride = (7, 2) if config.stem == "imagenet" else (3, 2 if config.stem == "half" else 1)
        if stem != 64 or config.stem != "imagenet" or channels != 3:
            self.conv1 = nn.Conv2d(channels, stem, kernel, stride, kernel // 2, bias=False)
            self.bn1 = nn.BatchNorm2d(stem)
            nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        if config.stem != "imagenet":
            self.maxpool = nn.Identity()
        if config.stages == 3:
            self.layer4 = nn.Identity()
        self.avgpool = self.fc = nn.Identity()
        self.feature_dim = self._channels(64 * 2 ** (config.stages - 1)) * spec.block.expansion
        """C, the number of channels of the features."""
        self.total_stride = config.total_stride
        """Side of a feature cell in input pixels."""
        self.stage_dims = tuple(self._channels(64 * 2**stage) * spec.block.expansion for stage in range(config.stages))
        """Number of channels of each stage's map. Each stage halves the sides of the previous map."""

    def _channels(self, stock: int) -> int:
        return int(stock * self._width)

    def _make_layer(self, block: Any, planes: int, blocks: int, stride: int = 1, dilate: bool = False) -> Any:
        """Build a stage as torchvision does, with the channels multiplied by the width."""
        if planes == 64:  # the first stage follows the stem
            self.inplanes = self._channels(64)
        return super()._make_layer(block, self._channels(planes), blocks, stride, dilate)

    def forward(self, x: Tensor) -> Tensor:
        """Return the last feature map; see the class."""
        return self.stage_maps(x)[-1]

    def stage_maps(self, x: Tensor) -> list[Tensor]:
        """Return the map of every stage; the last one is the last feature map."""
        x = self.maxpool(norm_relu(self.bn1, self.relu, self.conv1(x)))
        maps: list[Tensor] = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4)[: len(self.stage_dims)]:
            x = stage(x)
            maps.append(x)
        return maps

    def stage_norm(self, stage: int) -> nn.Module:
        """Return a new norm of the network's own kind for the map of `stage` (negative numbers count from the last)."""
        return nn.BatchNorm2d(self.stage_dims[stage])


def build_resnet(config: EncoderConfig, seed: int, channels: int = 3) -> ResNetBackbone:
    """Build a backbone with random weights, a function of the arguments alone. Parameters are float32, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, "encoder_init") >> 1)
        return ResNetBackbone(config, channels)
