"""SparK (arXiv 2301.03580): reconstruct hidden patches' pixels from a sparse CNN's features of the visible ones.

Shapes: B images of S pixels, G cells a side, p pixels a side of a patch, D channels of the encoder.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from cnnjepa.masks import Masks, sample_masks
from cnnjepa.methods.method import Method, Pass, StepDraw, StepLoss
from cnnjepa.methods.pooled import full_precision
from cnnjepa.schemas import PretrainConfig, SparKConfig
from cnnjepa.sparse import ContextEncoder

_EPSILON = 1e-6  # added to a patch's variance
_LEAST_WIDTH = 16


def patch_pixels(images_BCHW: Tensor, grid: int) -> Tensor:
    """The pixels of every patch, [B, G, G, p·p·3]."""
    b, c, size, _ = images_BCHW.shape
    p = size // grid
    return images_BCHW.reshape(b, c, grid, p, grid, p).permute(0, 2, 4, 3, 5, 1).reshape(b, grid, grid, p * p * c)


def normalised_patches(images_BCHW: Tensor, grid: int) -> Tensor:
    """The same, every patch with mean 0 and variance 1 over its pixels and colours."""
    patches = patch_pixels(images_BCHW, grid)
    mean, variance = patches.mean(-1, keepdim=True), patches.var(-1, keepdim=True)
    return (patches - mean) / (variance + _EPSILON).sqrt()


def light_decoder(features: int, dim: int, stride: int) -> nn.Sequential:
    """[B, features, G, G] → pixels [B, 3, G·stride, G·stride]: an upsampling by two and two convolutions at a time."""
    layers: list[nn.Module] = [nn.Conv2d(features, dim, 1)]
    for _ in range(round(math.log2(stride))):
        after = max(_LEAST_WIDTH, dim // 2)
        layers += [
            nn.ConvTranspose2d(dim, dim, 4, stride=2, padding=1),
            nn.Conv2d(dim, dim, 3, padding=1, bias=False),
            nn.BatchNorm2d(dim),
            nn.ReLU6(inplace=True),
            nn.Conv2d(dim, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
        ]
        dim = after
    layers.append(nn.Conv2d(dim, 3, 1))
    return nn.Sequential(*layers)


class SparK(Method):
    """Sparse encoder, one learned vector for hidden cells, decoder."""

    encoders: ClassVar[dict[str, str]] = {"context": "context_encoder.network"}

    def __init__(self, encoder: ContextEncoder, feature_dim: int, stride: int, config: SparKConfig) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.masking = config.masking
        self.context_encoder = encoder
        self.token = nn.Parameter(nn.init.trunc_normal_(torch.empty(feature_dim), std=0.02))
        self.decoder = light_decoder(feature_dim, config.decoder_dim, stride)

    def inputs(self, views: tuple[Tensor, ...], labels_B: Tensor, draw: StepDraw) -> tuple[Tensor, ...]:
        """The view and its masks [B, G, G]."""
        return (*views, *sample_masks(self.masking, draw.grid, draw.slots, draw.seed, draw.step))

    def masks(self, *inputs: Tensor) -> Masks:
        """The masks among the inputs."""
        return Masks(*inputs[1:])

    def terms(self, *inputs: Tensor) -> Tensor:
        """Hidden patches."""
        return inputs[2].sum(dtype=torch.float32)

    def forward(self, *inputs: Tensor) -> StepLoss:
        """Mean squared error of every hidden patch's normalised pixels."""
        images, context, hidden = inputs
        features = self.context_encoder(images, context)
        filled = torch.where(context[:, None], features, self.token.to(features.dtype)[:, None, None])
        grid = context.shape[1]
        with full_precision(self.decoder(filled), images) as (pixels, wanted):
            errors = (patch_pixels(pixels, grid) - normalised_patches(wanted, grid)).square().mean(-1)
            loss = torch.where(hidden, errors, errors.new_zeros(())).sum()
        return StepLoss(loss, self.terms(*inputs))

    def compiled(self) -> list[nn.Module]:
        """Not the packed encoder: its number of cells differs from step to step."""
        return [self.decoder]

    def passes(self, config: PretrainConfig) -> list[Pass]:
        """The packed encoder costs its visible share of a dense one; masked computes every cell."""
        share = config.visible_share if getattr(config.encoder, "backend", "") == "packed" else 1.0
        size = config.data.image_size
        return [
            Pass(self.context_encoder.network, (3, size, size), share, sees_images=True),
            Pass(self.decoder, (self.feature_dim, config.grid, config.grid), 1),
        ]
