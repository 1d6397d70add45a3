"""The upper reference (ceiling): encoder and linear classifier trained on labels. The lower reference (floor): no
training."""

from typing import Self

import torch.nn.functional as F
from torch import Tensor, nn

from cnnjepa.encoders import Backbone
from cnnjepa.methods.loss_precision import full_precision
from cnnjepa.methods.method import Method, Pass, StepDraw, StepLoss
from cnnjepa.methods.pooled_features import pooled
from cnnjepa.schemas import PretrainConfig, RandomInitConfig, SupervisedConfig


class Supervised(Method):
    """Cross-entropy of a linear layer on pooled features."""

    def __init__(self, backbone: nn.Module, feature_dim: int, classes: int) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.context_encoder = backbone
        self.classifier = nn.Linear(feature_dim, classes)

    @classmethod
    def build(cls, section: SupervisedConfig, backbone: Backbone, config: PretrainConfig, classes: int) -> Self:
        """See `Method.build`."""
        return cls(backbone, backbone.feature_dim, classes)

    def inputs(self, views: tuple[Tensor, ...], labels_B: Tensor, draw: StepDraw) -> tuple[Tensor, ...]:
        """Return the view and its labels."""
        return (*views, labels_B)

    def forward(self, *inputs: Tensor) -> StepLoss:
        """Return the loss of images [B, K, H, W] with labels int64 [B]."""
        images, labels = inputs
        with full_precision(self.classifier(pooled(self.context_encoder, images))) as (logits,):
            loss = F.cross_entropy(logits, labels, reduction="sum")
        right = (logits.detach().argmax(1) == labels).double().mean()
        return StepLoss(loss, self.terms(*inputs), {"accuracy": 100 * right})

    def passes(self, config: PretrainConfig) -> list[Pass]:
        return [
            Pass(self.context_encoder, config.image_shape, 1, sees_images=True),
            Pass(self.classifier, (self.feature_dim,), 1),
        ]


class RandomInit(Method):
    """An encoder with its initial weights. The loop performs no training step."""

    def __init__(self, backbone: nn.Module, feature_dim: int) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.context_encoder = backbone

    @classmethod
    def build(cls, section: RandomInitConfig, backbone: Backbone, config: PretrainConfig, classes: int) -> Self:
        """See `Method.build`."""
        return cls(backbone, backbone.feature_dim)

    def forward(self, *inputs: Tensor) -> StepLoss:
        raise AssertionError("random_init has no loss: the loop makes no step with it")

    def passes(self, config: PretrainConfig) -> list[Pass]:
        return []
