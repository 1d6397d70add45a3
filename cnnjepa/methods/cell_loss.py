"""Comparison of predicted and target features at every cell (docs/sources.md#loss)."""

import torch.nn.functional as F
from torch import Tensor

from cnnjepa.schemas.method import LossConfig


def cell_loss(prediction_BCGG: Tensor, target_BCGG: Tensor, config: LossConfig) -> Tensor:
    """Return the loss of every cell, float32 (or float64 if the inputs are), [B, rows, columns]. It is not yet
    restricted to target cells."""
    dtype = target_BCGG.dtype if target_BCGG.dtype.itemsize >= 4 else prediction_BCGG.float().dtype
    prediction, target = prediction_BCGG.to(dtype), target_BCGG.to(dtype)
    if config.normalized:
        prediction, target = F.normalize(prediction, dim=1), F.normalize(target, dim=1)
    if config.name == "cosine":
        return 1 - (prediction * target).sum(1)
    if config.name == "l2":
        return 0.5 * (prediction - target).square().sum(1)
    return F.smooth_l1_loss(prediction, target, reduction="none", beta=1.0).sum(1)
