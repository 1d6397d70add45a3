"""CNN-JEPA (arXiv 2408.07514, section III): predict features of masked patches from the visible ones."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from cnnjepa.masks import Masks, sample_masks
from cnnjepa.methods.loss import cell_loss
from cnnjepa.methods.predictor import Predictor
from cnnjepa.schemas.masking import MaskingConfig, MixedMasking
from cnnjepa.schemas.method import EMAConfig, LossConfig
from cnnjepa.sparse import ContextEncoder


class StepLoss(NamedTuple):
    """What a method's forward gives. The step's loss is the sum over processes and parts of `total`, divided by
    the sum of `weight`."""

    total: Tensor
    """Sum of the loss over this batch's terms, with gradient."""
    weight: Tensor
    """Number of those terms (target cells)."""

    @property
    def mean(self) -> Tensor:
        """The loss of this batch alone."""
        return self.total / self.weight


class CNNJEPA(nn.Module):
    """Context encoder, target encoder, token, predictor and loss.

    `encoder` computes the context sparsely; the target encoder is a dense copy of it that follows by moving
    average. `projection` is an optional 1x1 head on both feature maps (off in every published number).
    """

    def __init__(
        self,
        encoder: ContextEncoder,
        predictor: Predictor,
        feature_dim: int,
        masking: MaskingConfig | None = None,
        ema: EMAConfig | None = None,
        loss: LossConfig | None = None,
        projection: nn.Conv2d | None = None,
    ) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.masking = masking or MixedMasking()
        self.ema = ema or EMAConfig()
        self.loss = loss or LossConfig()
        self.context_encoder = encoder
        self.target_encoder = encoder.dense_copy()
        self.projection = projection if projection is not None else nn.Identity()
        self.target_projection = nn.Identity() if projection is None else _twin(projection)
        for module in (self.target_encoder, self.target_projection):
            module.requires_grad_(False)
        dim = feature_dim if projection is None else projection.out_channels
        self.predictor = predictor
        # The authors' values: standard deviation 0.02 truncated at ±0.02, an effective one of about 0.011.
        self.token = nn.Parameter(nn.init.trunc_normal_(torch.empty(dim), std=0.02, a=-0.02, b=0.02))

    def draw_masks(self, grid: int, slots_B: Tensor, seed: int, step: int) -> Masks:
        """The masks of a step; see `sample_masks`."""
        return sample_masks(self.masking, grid, slots_B, seed, step)

    def forward(self, images_BCHW: Tensor, context_mask: Tensor, target_mask: Tensor) -> StepLoss:
        """The loss over the target cells of this batch. Masks are boolean [B, G, G]; no cell may be both."""
        context = self.projection(self.context_encoder(images_BCHW, context_mask))
        token = self.token.to(context.dtype)[:, None, None]
        prediction = self.predictor(torch.where(context_mask[:, None], context, token))
        with torch.no_grad():
            target = self.target_projection(self.target_encoder(images_BCHW))
        losses = cell_loss(prediction, target, self.loss)
        return StepLoss(torch.where(target_mask, losses, losses.new_zeros(())).sum(), target_mask.sum())

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """ξ ← m ξ + (1 − m) θ over parameters only; running statistics stay the target's own."""
        pairs = [
            *zip(self.target_encoder.parameters(), self.context_encoder.network.parameters(), strict=True),
            *zip(self.target_projection.parameters(), self.projection.parameters(), strict=True),
        ]
        targets: list[Tensor] = [p for p, _ in pairs]
        torch._foreach_lerp_(targets, [p.detach() for _, p in pairs], 1.0 - momentum)

    def probed_encoder(self, which: str) -> nn.Module:
        """The dense network whose features are judged: `target`, or `context` run without a mask."""
        return self.target_encoder if which == "target" else self.context_encoder.network


def _twin(convolution: nn.Conv2d) -> nn.Conv2d:
    twin = nn.Conv2d(convolution.in_channels, convolution.out_channels, 1)
    twin.load_state_dict(convolution.state_dict())
    return twin
