"""VICReg (arXiv 2105.04906): make the projections of both views equal; variance and covariance terms prevent
collapse."""

from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnjepa.encoders import Backbone
from cnnjepa.methods.loss_precision import full_precision
from cnnjepa.methods.method import Method, Pass, StepLoss
from cnnjepa.methods.mlp_head import mlp
from cnnjepa.methods.pooled_features import pooled
from cnnjepa.schemas import PretrainConfig, VICRegConfig

_EPSILON = 1e-4  # added to variances before the root (the paper's)


class Terms(NamedTuple):
    """The three terms of a batch, unweighted."""

    invariance: Tensor
    """Mean squared difference of the views' projections, over images and outputs."""
    variance: Tensor
    """Mean over outputs of max(0, 1 − standard deviation), averaged over views."""
    covariance: Tensor
    """Sum of squared covariances between different outputs, divided by the number of outputs, summed over views."""


def vicreg_terms(first_BD: Tensor, second_BD: Tensor) -> Terms:
    """Return the terms of equations 1 to 4. The invariance is also averaged over outputs, as the weights 25, 25, 1
    require. Raises ValueError for fewer than two images, which have no variance."""
    if first_BD.shape[0] < 2:
        raise ValueError("VICReg's variance and covariance need 2 images or more on each process; given 1")
    with full_precision(first_BD, second_BD) as views:
        invariance = F.mse_loss(views[0], views[1])
        variance = covariance = views[0].new_zeros(())
        for view in views:
            centred = view - view.mean(0)
            squared = centred.T @ centred / (view.shape[0] - 1)
            deviations = (squared.diagonal() + _EPSILON).sqrt()
            variance = variance + F.relu(1 - deviations).mean() / 2
            others = squared.square().sum() - squared.diagonal().square().sum()
            covariance = covariance + others / view.shape[1]
        return Terms(invariance, variance, covariance)


class VICReg(Method):
    """Encoder and projector. Both views pass in one batch. The terms are computed per process, not gathered
    (docs/sources.md#vicreg-loss)."""

    def __init__(self, backbone: nn.Module, feature_dim: int, projector: nn.Module, config: VICRegConfig) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.context_encoder, self.projector = backbone, projector
        self._weights = (config.invariance, config.variance, config.covariance)

    @classmethod
    def build(cls, section: VICRegConfig, backbone: Backbone, config: PretrainConfig, classes: int) -> Self:
        """See `Method.build`."""
        dim = backbone.feature_dim
        return cls(backbone, dim, mlp(dim, section.hidden_dim, section.hidden_dim, section.output_dim), section)

    def forward(self, *inputs: Tensor) -> StepLoss:
        """Return the loss of two views [B, K, H, W]."""
        first, second = self.projector(pooled(self.context_encoder, torch.cat(inputs))).chunk(2)
        terms = vicreg_terms(first, second)
        loss = sum(weight * term for weight, term in zip(self._weights, terms, strict=True))
        scalars = {name: term.detach() for name, term in terms._asdict().items()}
        images = self.terms(*inputs)
        return StepLoss(loss * images, images, scalars)

    def passes(self, config: PretrainConfig) -> list[Pass]:
        return [
            Pass(self.context_encoder, config.image_shape, 2, sees_images=True),
            Pass(self.projector, (self.feature_dim,), 2),
        ]
