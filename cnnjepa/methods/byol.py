"""BYOL (arXiv 2006.07733): predict the moving-average projection of the other view."""

import copy
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnjepa.encoders import Backbone
from cnnjepa.methods.ema import follow
from cnnjepa.methods.loss_precision import full_precision
from cnnjepa.methods.method import Method, Pass, StepLoss
from cnnjepa.methods.mlp_head import mlp
from cnnjepa.methods.pooled_features import pooled
from cnnjepa.schemas import BYOLConfig, PretrainConfig


def negative_cosines(prediction_BD: Tensor, target_BD: Tensor) -> Tensor:
    """Return minus the cosine similarity of each pair of rows, [B]. The target gets no gradient."""
    with full_precision(prediction_BD, target_BD.detach()) as (prediction, target):
        return -(F.normalize(prediction, dim=1) * F.normalize(target, dim=1)).sum(1)


class BYOL(Method):
    """Encoder, projector and predictor. Moving averages follow encoder and projector. The views pass one after the
    other, so batch-norm statistics are computed per view."""

    encoders: ClassVar[dict[str, str]] = {"context": "context_encoder", "target": "target_encoder"}

    def __init__(self, backbone: nn.Module, feature_dim: int, projector: nn.Module, predictor: nn.Module) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.context_encoder, self.projector, self.predictor = backbone, projector, predictor
        self.target_encoder, self.target_projector = copy.deepcopy(backbone), copy.deepcopy(projector)
        for module in (self.target_encoder, self.target_projector):
            module.requires_grad_(False)

    @classmethod
    def build(cls, section: BYOLConfig, backbone: Backbone, config: PretrainConfig, classes: int) -> Self:
        """See `Method.build`."""
        dim, out = backbone.feature_dim, section.output_dim
        projector = mlp(dim, section.hidden_dim, out)
        return cls(backbone, dim, projector, mlp(out, section.predictor_hidden_dim, out))

    def forward(self, *inputs: Tensor) -> StepLoss:
        """Return the loss of two views [B, K, H, W], averaged over both directions."""
        predictions = [self.predictor(self.projector(pooled(self.context_encoder, view))) for view in inputs]
        with torch.no_grad():
            targets = [self.target_projector(pooled(self.target_encoder, view)) for view in inputs]
        losses = negative_cosines(predictions[0], targets[1]) + negative_cosines(predictions[1], targets[0])
        return StepLoss(losses.sum() / 2, self.terms(*inputs))

    def follow(self, momentum: float) -> None:
        """Update the target encoder and projector, parameters only."""
        follow(((self.target_encoder, self.context_encoder), (self.target_projector, self.projector)), momentum)

    def passes(self, config: PretrainConfig) -> list[Pass]:
        images, width = config.image_shape, self._width
        return [
            Pass(self.context_encoder, images, 2, sees_images=True),
            Pass(self.projector, (self.feature_dim,), 2),
            Pass(self.predictor, (width,), 2),
            Pass(self.target_encoder, images, 2, trained=False),
            Pass(self.target_projector, (self.feature_dim,), 2, trained=False),
        ]

    @property
    def _width(self) -> int:
        """Width of the projections."""
        return next(m for m in self.predictor.modules() if isinstance(m, nn.Linear)).in_features
