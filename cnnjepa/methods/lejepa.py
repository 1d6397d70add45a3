"""LeJEPA (arXiv 2511.08544): the views agree, and their projections follow an isotropic Gaussian distribution.

Shapes: V views (the G global ones first), N images of the global batch, D outputs of the projector, M slices.
"""

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnjepa.encoders import Backbone
from cnnjepa.methods.collectives import gathered
from cnnjepa.methods.loss_precision import full_precision
from cnnjepa.methods.method import Method, Pass, StepDraw, StepLoss
from cnnjepa.methods.mlp_head import mlp
from cnnjepa.methods.pooled_features import pooled
from cnnjepa.randomness import generator
from cnnjepa.schemas import LeJEPAConfig, PretrainConfig
from cnnjepa.schemas.extent import area, height_width
from cnnjepa.tensor_ops.transfer import moved

_REACH = 5.0  # characteristic functions are compared on [−5, 5] (Algorithm 1); the weight is 4e-6 at its ends


def draw_slices(dim: int, count: int, seed: int, step: int) -> Tensor:
    """Draw unit vectors [D, M], uniform on the sphere, float32 on the CPU: a function of (seed, step)."""
    return F.normalize(torch.randn(dim, count, generator=generator(seed, "slices", step)), dim=0)


def epps_pulley(values_NM: Tensor, knots: int) -> Tensor:
    """Return the Epps–Pulley statistic of every column against N(0, 1), [M]: N ∫ |φ̂(t) − e^(−t²/2)|² e^(−t²/2) dt, by
    the trapezoidal rule. The integrand is even, so only t ≥ 0 is computed. Raises ValueError for fewer than two values:
    a single value has no distribution, and the statistic would be smallest at 0, where all values collapse."""
    if values_NM.shape[0] < 2:
        raise ValueError("LeJEPA's statistic needs 2 or more images in the global batch; given 1")
    half = (knots - 1) // 2
    t = torch.linspace(0.0, _REACH, half + 1, dtype=values_NM.dtype, device=values_NM.device)
    gaussian = torch.exp(-0.5 * t**2)
    weight = torch.full_like(t, 2 * _REACH / half)
    weight[0] = weight[-1] = _REACH / half
    angle = values_NM[..., None] * t
    error = (angle.cos().mean(0) - gaussian).square() + angle.sin().mean(0).square()
    return values_NM.shape[0] * (error * gaussian * weight).sum(-1)


class LeJEPA(Method):
    """Encoder and projector. Views of one size pass through the encoder in one batch, and all views pass through the
    projector in one batch."""

    def __init__(
        self, backbone: nn.Module, feature_dim: int, projector: nn.Module, config: LeJEPAConfig, centre_of_all: bool
    ) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.context_encoder, self.projector = backbone, projector
        self._config = config
        views = config.global_views + config.local_views
        self._central = views if centre_of_all else config.global_views

    @classmethod
    def build(cls, section: LeJEPAConfig, backbone: Backbone, config: PretrainConfig, classes: int) -> Self:
        """See `Method.build`."""
        dim = backbone.feature_dim
        projector = mlp(dim, section.hidden_dim, section.hidden_dim, section.output_dim)
        centre = "global" if config.encoder.KIND == "transformer" else "all"
        return cls(backbone, dim, projector, section, (centre if section.centre == "auto" else section.centre) == "all")

    def inputs(self, views: tuple[Tensor, ...], labels_B: Tensor, draw: StepDraw) -> tuple[Tensor, ...]:
        """Return the views and, for every image, the step's slices [B, D, M] (one copy, expanded B times)."""
        config = self._config
        slices = moved(draw_slices(config.output_dim, config.slices, draw.seed, draw.step), views[0].device)
        slices = slices.to(views[0].dtype)
        return (*views, slices.expand(views[0].shape[0], -1, -1))

    def forward(self, *inputs: Tensor) -> StepLoss:
        """Return (1 − λ) · the mean squared distance of all views to their centre (or that of the global views) + λ ·
        the mean statistic over views and slices, for the global batch."""
        *views, slices = inputs
        count = self._config.global_views
        sizes = [part for part in (views[:count], views[count:]) if part]
        features = torch.cat([pooled(self.context_encoder, torch.cat(part)) for part in sizes])
        with full_precision(self.projector(features), slices[0]) as (z, directions):
            own_VND = z.unflatten(0, (len(views), -1))
            agreement = (own_VND - own_VND[: self._central].mean(0)).square().mean()
            everyone = [gathered(view) for view in own_VND]
            statistic = torch.stack([epps_pulley(view @ directions, self._config.knots).mean() for view in everyone])
            gaussianity, share = statistic.mean(), self._config.regularization
            loss = (1 - share) * agreement + share * gaussianity
        images = self.terms(*inputs)
        scalars = {"agreement": agreement.detach(), "gaussianity": gaussianity.detach()}
        return StepLoss(loss * images, images, scalars)

    def passes(self, config: PretrainConfig) -> list[Pass]:
        encoder, sizes = self.context_encoder, [view.size for view in config.views]
        by_size = [
            Pass(encoder, (config.data.channels, *height_width(size)), sizes.count(size), sees_images=True)
            for size in sorted(set(sizes), key=area)
        ]
        return [*by_size, Pass(self.projector, (self.feature_dim,), len(sizes))]
