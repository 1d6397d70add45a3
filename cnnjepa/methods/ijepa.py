"""I-JEPA (arXiv 2301.08243): predict the moving-average features of several blocks from one context block.

Shapes: B images, N target blocks of T cells, K context cells, D channels of the encoder, P of the predictor.
"""

import copy
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnjepa.encoders.vit import ViTBackbone, blocks, positions, start_linear
from cnnjepa.masks import Masks
from cnnjepa.masks.context_blocks import draw_context_blocks
from cnnjepa.methods.ema import follow
from cnnjepa.methods.loss_precision import full_precision
from cnnjepa.methods.method import Method, Pass, StepDraw, StepLoss
from cnnjepa.schemas import IJEPAConfig, IJEPAMasking, PretrainConfig
from cnnjepa.schemas.extent import Extent, area
from cnnjepa.tensor_ops.transfer import moved


class TransformerPredictor(nn.Module):
    """Predictor: context tokens, and one mask token per position of a target block → the block's features."""

    def __init__(self, encoder_dim: int, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.enter = nn.Linear(encoder_dim, dim)
        self.token = nn.Parameter(nn.init.trunc_normal_(torch.empty(dim), std=0.02))
        self.blocks = blocks(depth, dim, heads)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.leave = nn.Linear(dim, encoder_dim)
        start_linear(self.enter)
        start_linear(self.leave)

    def forward(self, context_BKD: Tensor, keep_BK: Tensor, targets_BNT: Tensor, grid: Extent) -> Tensor:
        """Return predictions [B, N, T, D]. Every block is predicted independently."""
        codes = positions(grid, self.token.numel(), self.token)
        seen = self.enter(context_BKD) + codes[keep_BK]
        asked = self.token + codes[targets_BNT]  # [B, N, T, P]
        n, t = targets_BNT.shape[1:]
        seen = seen[:, None].expand(-1, n, -1, -1).flatten(0, 1)
        both = torch.cat([seen, asked.flatten(0, 1).to(seen.dtype)], 1)
        predicted: Tensor = self.leave(self.norm(self.blocks(both))[:, -t:])
        return predicted.unflatten(0, (-1, n))


class IJEPA(Method):
    """Context encoder, target encoder and predictor."""

    encoders: ClassVar[dict[str, str]] = {"context": "context_encoder", "target": "target_encoder"}

    def __init__(self, backbone: ViTBackbone, config: IJEPAConfig) -> None:
        super().__init__()
        self.feature_dim = backbone.feature_dim
        self.masking: IJEPAMasking = config.masking
        self.context_encoder = backbone
        self.target_encoder = copy.deepcopy(backbone).requires_grad_(False)
        self.predictor = TransformerPredictor(
            backbone.feature_dim, config.predictor.dim, config.predictor.depth, backbone.heads
        )

    @classmethod
    def build(cls, section: IJEPAConfig, backbone: ViTBackbone, config: PretrainConfig, classes: int) -> Self:
        """See `Method.build`."""
        return cls(backbone, section)

    def inputs(self, views: tuple[Tensor, ...], labels_B: Tensor, draw: StepDraw) -> tuple[Tensor, ...]:
        """Return the view, context cells int64 [B, K] and target cells int64 [B, N, T]."""
        drawn = draw_context_blocks(self.masking, draw.grid, draw.batch_indices, draw.seed, draw.step)
        return (*views, *(moved(cells, views[0].device) for cells in drawn))

    def masks(self, *inputs: Tensor) -> Masks:
        """Return the context and the union of the targets."""
        images, keep, targets = inputs
        rows, columns = self._grid(images)
        shown = []
        for cells in (keep, targets.flatten(1)):
            flat = torch.zeros(cells.shape[0], rows * columns, dtype=torch.bool, device=cells.device)
            shown.append(flat.scatter(1, cells, True).view(-1, rows, columns))
        return Masks(*shown)

    def _grid(self, images_BCHW: Tensor) -> tuple[int, int]:
        """Return the rows and columns of cells of these images."""
        stride = self.context_encoder.total_stride
        return images_BCHW.shape[2] // stride, images_BCHW.shape[3] // stride

    def terms(self, *inputs: Tensor) -> Tensor:
        """Return the number of target cells. A cell in two blocks counts twice."""
        return inputs[0].new_full((), float(inputs[2].numel()))  # a copy from the host would wait for the GPU

    def forward(self, *inputs: Tensor) -> StepLoss:
        """Return the smooth-L1 loss (β = 1) between predictions and layer-normed targets, averaged over channels and
        target cells."""
        images, keep, targets = inputs
        predicted = self.predictor(self.context_encoder.tokens(images, keep), keep, targets, self._grid(images))
        with torch.no_grad():
            whole = self.target_encoder(images).flatten(2).transpose(1, 2)
        with full_precision(predicted, whole) as (prediction, features):
            features = F.layer_norm(features, (self.feature_dim,))
            cells = targets.flatten(1)[..., None].expand(-1, -1, self.feature_dim)
            wanted = features.gather(1, cells).view_as(prediction)
            loss = F.smooth_l1_loss(prediction, wanted, reduction="none").mean(-1).sum()
        return StepLoss(loss, self.terms(*inputs))

    def follow(self, momentum: float) -> None:
        """Update the target encoder."""
        follow(((self.target_encoder, self.context_encoder),), momentum)

    def compiled(self) -> list[nn.Module]:
        """Return the modules for torch.compile. Context encoder and predictor are excluded: their number of tokens
        differs between steps."""
        return [self.target_encoder]

    def passes(self, config: PretrainConfig) -> list[Pass]:
        """Return the parts of a step, at the mean number of context and target tokens."""
        cells = area(config.grid)
        context = max(1, round(config.visible_share * cells))
        n, dim = self.masking.num_blocks, self.predictor.token.numel()
        block = max(1, round(cells * sum(self.masking.scale) / 2))
        patches = self.context_encoder.patch_embed.proj
        assert isinstance(patches, nn.Module)
        return [
            Pass(self.target_encoder, config.image_shape, 1, trained=False),
            Pass(patches, config.image_shape, 1, sees_images=True),
            Pass(self.context_encoder.blocks, (context, self.feature_dim), 1),
            Pass(self.predictor.enter, (context, self.feature_dim), 1),
            Pass(self.predictor.blocks, (context + block, dim), n),
            Pass(self.predictor.leave, (block, dim), n),
        ]
