"""A vision transformer made of timm's blocks, as I-JEPA uses it: no class token, fixed positions, and tokens can be
dropped.

Shapes: B images, N patches, K of them visible, D channels.
"""

import functools
import math

import torch
from torch import Tensor, nn

from cnnjepa.optional import needed
from cnnjepa.randomness import key
from cnnjepa.schemas import ViTConfig
from cnnjepa.schemas.encoder import VIT_HEADS
from cnnjepa.schemas.extent import Extent, height_width

_WIDTH_OF_HEAD = 64


def positions(grid: Extent, dim: int, like: Tensor) -> Tensor:
    """Return the sine-cosine position codes [cells, dim] of the cells in reading order. Half of the channels encode the
    column and half the row; each half holds the sines of all frequencies, then their cosines. `dim` must be a multiple
    of 4."""
    frequency = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    height, width = height_width(grid)
    angle = torch.arange(max(height, width), dtype=torch.float64)[:, None] * frequency
    line = torch.cat([angle.sin(), angle.cos()], 1)  # [longer side, dim / 2]
    rows = line[:height, None].expand(-1, width, -1)
    columns = line[None, :width].expand(height, -1, -1)
    return torch.cat([columns, rows], 2).flatten(0, 1).to(like)


def blocks(count: int, dim: int, heads: int) -> nn.Sequential:
    """Build timm's transformer blocks, initialised as in I-JEPA: normal with standard deviation 0.02, cut at two
    deviations, and the last layer of every branch divided by √(2 · its block's number)."""
    timm = needed("timm.models.vision_transformer", "vit", f"a vision transformer ({count} blocks)")
    norm = functools.partial(nn.LayerNorm, eps=1e-6)
    made = [timm.Block(dim, heads, qkv_bias=True, norm_layer=norm) for _ in range(count)]
    for number, block in enumerate(made, 1):
        for layer in block.modules():
            if isinstance(layer, nn.Linear):
                start_linear(layer)
        with torch.no_grad():
            for layer in (block.attn.proj, block.mlp.fc2):
                layer.weight.div_(math.sqrt(2 * number))
    return nn.Sequential(*made)


def start_linear(layer: nn.Linear | nn.Conv2d) -> None:
    """Initialise weights from a normal distribution with standard deviation 0.02, cut at ±2 (so almost never), and
    biases with zero."""
    nn.init.trunc_normal_(layer.weight, std=0.02)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class ViTBackbone(nn.Module):
    """Vision transformer: images [B, K, H, W] of K `channels` → features [B, D, H/s, W/s] at patch size s. Parameter
    names are timm's."""

    def __init__(self, config: ViTConfig, channels: int = 3) -> None:
        super().__init__()
        self.heads = VIT_HEADS[config.arch]
        self.feature_dim = _WIDTH_OF_HEAD * self.heads
        """D, the number of channels of the features."""
        self.total_stride = config.patch_size
        """Side of a feature cell in input pixels."""
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(channels, self.feature_dim, config.patch_size, config.patch_size)
        start_linear(self.patch_embed.proj)
        self.blocks = blocks(config.blocks, self.feature_dim, self.heads)
        self.norm = nn.LayerNorm(self.feature_dim, eps=1e-6)

    def embed(self, images_BCHW: Tensor) -> Tensor:
        """Return the embedded patches with their positions, [B, N, D]."""
        patches = self.patch_embed.proj(images_BCHW)  # type: ignore[operator]
        tokens: Tensor = patches.flatten(2).transpose(1, 2)
        return tokens + positions(patches.shape[2:], self.feature_dim, tokens)

    def tokens(self, images_BCHW: Tensor, keep_BK: Tensor) -> Tensor:
        """Return the features [B, K, D] of the patches at `keep` (int64, reading order). The other patches are dropped
        before the first block."""
        seen = self.embed(images_BCHW).gather(1, keep_BK[..., None].expand(-1, -1, self.feature_dim))
        features: Tensor = self.norm(self.blocks(seen))
        return features

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the features of all patches; see the class."""
        grid = tuple(side // self.total_stride for side in images_BCHW.shape[2:])
        features: Tensor = self.norm(self.blocks(self.embed(images_BCHW)))
        return features.transpose(1, 2).unflatten(2, grid)


def build_vit(config: ViTConfig, seed: int, channels: int = 3) -> ViTBackbone:
    """Build a transformer with random weights, a function of the arguments alone. Parameters are float32, on the
    CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, "encoder_init") >> 1)
        return ViTBackbone(config, channels)
