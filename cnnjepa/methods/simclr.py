"""SimCLR (arXiv 2002.05709): distinguish an image's two views from all other views of the global batch."""

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnjepa.encoders import Backbone
from cnnjepa.methods.collectives import gathered, world
from cnnjepa.methods.loss_precision import full_precision
from cnnjepa.methods.method import Method, Pass, StepLoss
from cnnjepa.methods.mlp_head import mlp
from cnnjepa.methods.pooled_features import pooled
from cnnjepa.schemas import PretrainConfig, SimCLRConfig


def nt_xent(first_BD: Tensor, second_BD: Tensor, temperature: float) -> Tensor:
    """Return the normalised, temperature-scaled cross-entropy (equation 1), summed over this process's images and
    averaged over an image's two views. Every other view of the global batch is a negative. Raises ValueError if there
    is none."""
    with full_precision(first_BD, second_BD) as (first, second):
        first, second = F.normalize(first, dim=1), F.normalize(second, dim=1)
        all_first, all_second = gathered(first), gathered(second)
        if all_first.shape[0] < 2:
            raise ValueError("NT-Xent has no negatives in a global batch of 1 image; give 2 or more")
        own = world()[0] * first.shape[0] + torch.arange(first.shape[0], device=first.device)
        total = first.new_zeros(())
        for view, same, other in ((first, all_first, all_second), (second, all_second, all_first)):
            to_same = (view @ same.T / temperature).scatter(1, own[:, None], float("-inf"))  # not with itself
            logits = torch.cat([view @ other.T / temperature, to_same], 1)
            total = total + F.cross_entropy(logits, own, reduction="sum")
        return total / 2


class SimCLR(Method):
    """Encoder and projector. Both views pass in one batch, so batch-norm statistics are computed over both."""

    def __init__(self, backbone: nn.Module, feature_dim: int, projector: nn.Module, temperature: float) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.context_encoder, self.projector = backbone, projector
        self.temperature = temperature

    @classmethod
    def build(cls, section: SimCLRConfig, backbone: Backbone, config: PretrainConfig, classes: int) -> Self:
        """See `Method.build`."""
        dim = backbone.feature_dim
        projector = mlp(dim, section.hidden_dim, section.output_dim, norm_last=True)
        return cls(backbone, dim, projector, section.temperature)

    def forward(self, *inputs: Tensor) -> StepLoss:
        """Return the loss of two views [B, K, H, W]."""
        first, second = self.projector(pooled(self.context_encoder, torch.cat(inputs))).chunk(2)
        return StepLoss(nt_xent(first, second, self.temperature), self.terms(*inputs))

    def passes(self, config: PretrainConfig) -> list[Pass]:
        return [
            Pass(self.context_encoder, config.image_shape, 2, sees_images=True),
            Pass(self.projector, (self.feature_dim,), 2),
        ]
