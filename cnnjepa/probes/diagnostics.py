"""Diagnostics of the features: effective rank, spread, collapse."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnjepa.schemas import Diagnostics

# Unit-length features whose mean squared distance to their mean is below (1 %)² all have the same direction, whatever
# the image. Measured healthy runs are above 10 %, untrained encoders above 3 % (docs/log.md).
COLLAPSED_STD = 0.01
# Effective rank 1 means that one direction holds all variation, as when all features are equal.
COLLAPSED_RANK = 1.05


def rankme(values_ND: Tensor) -> float:
    """Return the exponential of the entropy of the normalised singular values (arXiv 2210.02885, eq. 1), in float64;
    from 1 to D."""
    values = values_ND.double()
    squared = torch.linalg.eigvalsh(values.T @ values).clamp(min=0)
    share = squared.sqrt() / squared.sqrt().sum().clamp(min=1e-300) + 1e-7
    return float(torch.exp(-(share * share.log()).sum()))


def feature_std(values_ND: Tensor) -> float:
    """Return √(mean squared distance of unit-length features to their mean): 0 means all are equal, 1 means that their
    mean is the origin."""
    unit = F.normalize(values_ND.double(), dim=1)
    return float((unit - unit.mean(0)).square().sum(1).mean().sqrt())


def diagnose(values_ND: Tensor) -> Diagnostics:
    """Return rank and spread, and, if the features count as collapsed, the reason in words."""
    dim = values_ND.shape[1]
    if not torch.isfinite(values_ND).all():
        share = (~torch.isfinite(values_ND)).double().mean().item()
        evidence = f"{100 * share:.3g} % of the feature values are not finite"
        return Diagnostics(rankme=0.0, feature_std=0.0, feature_dim=dim, collapse_evidence=evidence)
    rank, std = rankme(values_ND), feature_std(values_ND)
    reasons = []
    if std < COLLAPSED_STD:
        reasons.append(f"unit-length features lie within {std:.2g} of their mean (collapsed below {COLLAPSED_STD})")
    if rank < COLLAPSED_RANK:
        reasons.append(f"RankMe is {rank:.3f} of {dim} (collapsed below {COLLAPSED_RANK})")
    return Diagnostics(rankme=rank, feature_std=std, feature_dim=dim, collapse_evidence="; ".join(reasons) or None)
