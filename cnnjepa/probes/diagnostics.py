"""Diagnostics of the features, which need no labels: effective ranks, spectrum, spread, collapse."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnjepa.schemas import Diagnostics

# Unit-length features whose mean squared distance to their mean is below (1 %)² all have the same direction, whatever
# the image. Measured healthy runs are above 10 %, untrained encoders above 3 % (docs/log.md).
COLLAPSED_STD = 0.01
# Effective rank 1 means that one direction holds all variation, as when all features are equal.
COLLAPSED_RANK = 1.05

# Added to every share of an entropy (arXiv 2210.02885, eq. 1).
_EPSILON = 1e-7
# Added to the within-image covariance, as a fraction of its mean variance: features times a constant keep their LiDAR.
# Source: ours; the paper has a small constant δ.
_LIDAR_DELTA = 1e-4
# Eigenvalues from which the exponent is fitted, counted from 1. Source: the released code of arXiv 2202.05808, which
# leaves out the largest three and weights each by 1 / rank.
_FIRST_RANK, _LAST_RANK = 4, 100
# Assumption: fewer points are no spectrum.
_LEAST_POINTS = 5
# Eigenvalues below this fraction of the largest are rounding of float32 features, or channels that are always zero.
_LEAST_SHARE = 1e-12
_BLOCK = 8192  # rows at a time


def rankme(values_ND: Tensor) -> float:
    """Return the exponential of the entropy of the normalised singular values (arXiv 2210.02885, eq. 1), in float64;
    from 1 to D."""
    values = values_ND.double()
    return _effective_count(torch.linalg.eigvalsh(values.T @ values).clamp(min=0).sqrt())


def lidar(values_NQD: Tensor) -> float:
    """Return LiDAR (arXiv 2312.04000, eq. 1 to 3) of the features of Q views of N images, in float64; from 1 to
    min(N − 1, D): the exponential of the entropy of the normalised eigenvalues of Σw^(−½) Σb Σw^(−½). Σb is the
    covariance of the images' mean features, Σw that of the views around the mean of their image, plus δ."""
    values = values_NQD.double()
    images, views, dim = values.shape
    means_ND = values.mean(1)
    spread = (values - means_ND[:, None]).flatten(0, 1)
    within = spread.T @ spread / (images * views)
    between_ND = (means_ND - means_ND.mean(0)) / images**0.5
    # Where views of an image are equal, up to rounding, any δ gives the same shares.
    delta = max(_LIDAR_DELTA * float(within.trace()), _LEAST_SHARE * float(between_ND.square().sum())) / dim or 1.0
    factor = torch.linalg.cholesky(within + delta * torch.eye(dim, dtype=torch.float64))
    # L⁻¹ Σb L⁻ᵀ with Σw = L Lᵀ has the same eigenvalues, and so has the product in the other order, apart from zeros.
    whitened = torch.linalg.solve_triangular(factor, between_ND.T, upper=False)
    gram = whitened @ whitened.T if dim <= images else whitened.T @ whitened
    eigenvalues = torch.linalg.eigvalsh(gram).clamp(min=0)
    return _effective_count(torch.cat([eigenvalues, eigenvalues.new_zeros(dim - eigenvalues.numel())]))


def alpha_req(values_ND: Tensor) -> float | None:
    """Return the exponent α of the power law λᵢ ∝ i^(−α) of the eigenvalues of the features' covariance (α-ReQ, arXiv
    2202.05808), in float64: the slope of log λᵢ over −log i by least squares with weights 1 / i, for i from 4 to 100 as
    far as there are eigenvalues above 0. None if these are fewer than five."""
    mean = values_ND.mean(0, dtype=torch.float64)
    centred = (block.double() - mean for block in values_ND.split(_BLOCK))
    covariance = sum(block.T @ block for block in centred) / values_ND.shape[0]
    eigenvalues = torch.linalg.eigvalsh(torch.as_tensor(covariance)).flip(0)
    above = int((eigenvalues > _LEAST_SHARE * eigenvalues[0].clamp(min=1e-300)).sum())
    last = min(_LAST_RANK, above)
    if last < _FIRST_RANK - 1 + _LEAST_POINTS:
        return None
    ranks = torch.arange(_FIRST_RANK, last + 1, dtype=torch.float64)
    x, y = ranks.log(), eigenvalues[_FIRST_RANK - 1 : last].log()
    weight = (1 / ranks) / (1 / ranks).sum()
    x, y = x - (weight * x).sum(), y - (weight * y).sum()
    return -float((weight * x * y).sum() / (weight * x * x).sum())


def _effective_count(values: Tensor) -> float:
    """Return the exponential of the entropy of the values' shares: the number of values if all are equal."""
    share = values / values.sum().clamp(min=1e-300) + _EPSILON
    return float(torch.exp(-(share * share.log()).sum()))


def feature_std(values_ND: Tensor) -> float:
    """Return √(mean squared distance of unit-length features to their mean): 0 means all are equal, 1 means that their
    mean is the origin."""
    unit = F.normalize(values_ND.double(), dim=1)
    return float((unit - unit.mean(0)).square().sum(1).mean().sqrt())


def diagnose(values_ND: Tensor) -> Diagnostics:
    """Return rank, exponent and spread, and, if the features count as collapsed, the reason in words."""
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
    return Diagnostics(
        rankme=rank,
        feature_std=std,
        feature_dim=dim,
        alpha_req=alpha_req(values_ND),
        collapse_evidence="; ".join(reasons) or None,
    )
