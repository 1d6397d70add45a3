"""SparK (arXiv 2301.03580): reconstruct the pixels of hidden patches from a sparse CNN's features of the visible ones.

Shapes: B images of H x W pixels, a grid of R rows and C columns of patches, p pixels per side of a patch.
"""

import math
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from cnnjepa.encoders import Backbone, ConvNeXtBackbone, ResNetBackbone
from cnnjepa.masks import Masks, sample_masks
from cnnjepa.methods.loss_precision import full_precision
from cnnjepa.methods.method import Method, Pass, StepDraw, StepLoss
from cnnjepa.methods.unet_decoder import UNetDecoder
from cnnjepa.schemas import PretrainConfig, SparKConfig
from cnnjepa.schemas.extent import Extent, height_width
from cnnjepa.sparse import ContextEncoder, context_encoder
from cnnjepa.tensor_ops.transfer import moved

_EPSILON = 1e-6  # added to a patch's variance


def patch_pixels(images_BCHW: Tensor, grid: Extent) -> Tensor:
    """Return the pixels of every patch, [B, R, C, p·p·K] for K channels."""
    b, k, height, _ = images_BCHW.shape
    rows, columns = height_width(grid)
    p = height // rows
    cells = images_BCHW.reshape(b, k, rows, p, columns, p).permute(0, 2, 4, 3, 5, 1)
    return cells.reshape(b, rows, columns, p * p * k)


def normalised_patches(images_BCHW: Tensor, grid: Extent) -> Tensor:
    """Return the same, with mean 0 and variance 1 per patch, over its pixels and channels."""
    patches = patch_pixels(images_BCHW, grid)
    mean, variance = patches.mean(-1, keepdim=True), patches.var(-1, keepdim=True)
    return (patches - mean) / (variance + _EPSILON).sqrt()


def decoder_width(features: int, stride: int) -> int:
    """Return the number of channels at the decoder's first block: three eighths of the encoder's `features` (the
    released code has 768 for a ResNet-50's 2048), rounded to a multiple of the stride (every doubling of the resolution
    halves the channels), with at least 4 channels at the image's size."""
    return stride * max(4, round(features * 3 / 8 / stride))


class SparK(Method):
    """Sparse encoder, one norm per scale, and decoder."""

    encoders: ClassVar[dict[str, str]] = {"context": "context_encoder.network"}

    def __init__(self, encoder: ContextEncoder, config: SparKConfig, channels: int = 3) -> None:
        super().__init__()
        backbone = encoder.network
        assert isinstance(backbone, ResNetBackbone | ConvNeXtBackbone)  # the config refuses all others
        self.feature_dim = backbone.feature_dim
        self.masking = config.masking
        self.context_encoder = encoder
        doublings = round(math.log2(backbone.total_stride))
        # A map of the image's own size (stem small) is left out: no block would follow that could use it.
        scales = min(len(backbone.stage_dims), doublings)
        self.norms = nn.ModuleList(backbone.stage_norm(-1 - scale) for scale in range(scales))
        width = config.decoder_dim or decoder_width(backbone.feature_dim, backbone.total_stride)
        self.decoder = UNetDecoder(backbone.stage_dims[::-1][:scales], width, doublings, channels)

    @classmethod
    def build(cls, section: SparKConfig, backbone: Backbone, config: PretrainConfig, classes: int) -> Self:
        """See `Method.build`."""
        return cls(context_encoder(backbone, config.encoder), section, config.data.channels)

    def inputs(self, views: tuple[Tensor, ...], labels_B: Tensor, draw: StepDraw) -> tuple[Tensor, ...]:
        """Return the view and its masks [B, R, C]. The context mask stays in host memory, where the encoder counts its
        cells."""
        masks = sample_masks(self.masking, draw.grid, draw.batch_indices, draw.seed, draw.step)
        return (*views, masks.context, moved(masks.target, views[0].device))

    def masks(self, *inputs: Tensor) -> Masks:
        """Return the masks among the inputs."""
        return Masks(*inputs[1:])

    def terms(self, *inputs: Tensor) -> Tensor:
        """Return the number of hidden patches."""
        return inputs[2].sum(dtype=torch.float32)

    def forward(self, *inputs: Tensor) -> StepLoss:
        """Return the mean squared error of the normalised pixels of all hidden patches."""
        images, context, hidden = inputs
        maps = self.context_encoder.stage_maps(images, context, list(self.norms))
        rows, columns = context.shape[1:]
        grid = (rows, columns)
        with full_precision(self.decoder(maps, moved(context, images.device)), images) as (pixels, wanted):
            errors = (patch_pixels(pixels, grid) - normalised_patches(wanted, grid)).square().mean(-1)
            loss = torch.where(hidden, errors, errors.new_zeros(())).sum()
        return StepLoss(loss, self.terms(*inputs))

    def compiled(self) -> list[nn.Module]:
        """Return the modules for torch.compile. The packed encoder is excluded: its number of cells differs between
        steps."""
        return [self.decoder]

    def passes(self, config: PretrainConfig) -> list[Pass]:
        """Return the parts of a step. The packed encoder costs the visible fraction of a dense one; the masked encoder
        computes every cell."""
        share = config.computed_share
        encoder = Pass(self.context_encoder.network, config.image_shape, share, sees_images=True)
        return [encoder, *self.decoder.passes(config.grid)]
