"""Multinomial logistic regression with a squared penalty, fitted to convergence.

The objective is scikit-learn's: C · Σ cross-entropy + ½ ‖W‖², without a penalty on the bias. scipy's L-BFGS-B minimises
it in float64, as there. It works in the principal axes of the centred rows, each scaled by the curvature of the
objective where it starts. This is a change of variables: the minimum is the same, and is reached in a few dozen steps
whatever C is. With fewer rows than channels there are also fewer unknowns.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from cnnjepa.errors import RunError

_MOST_STEPS = 1000
# Largest component of the gradient of the mean loss in scaled coordinates, where the curvature is about 1.
_TOLERANCE = 1e-6
# Singular values below this share of the largest are rounding.
_RANK = 1e-12


class Logistic(NamedTuple):
    """A fitted classifier."""

    weight: Tensor
    """float64 [classes, D]."""
    bias: Tensor
    """float64 [classes]."""

    def scores(self, rows: Tensor) -> Tensor:
        """Return the logits of rows [N, D], float64 [N, classes]."""
        return rows.double() @ self.weight.T + self.bias


def fit_path(rows: Tensor, labels: Tensor, classes: int, cs: Sequence[float]) -> list[Logistic]:
    """Return the classifiers for all values of `cs`, in their order, fitted on rows [N, D] with labels int64 [N]. Each
    starts from the solution of the next smaller C. Computed on the device of `rows`. Raises RunError if one does not
    converge."""
    x = rows.double()
    centre = x.mean(0)
    left, size, axes = torch.linalg.svd(x - centre, full_matrices=False)
    kept = size > _RANK * size[0]
    x, axes, size = left[:, kept] * size[kept], axes[kept], size[kept]
    found: dict[float, Logistic] = {}
    start = torch.zeros(classes, x.shape[1] + 1, dtype=torch.float64, device=x.device)
    for c in sorted(set(cs)):
        start = _fitted(x, labels, c, size, start)
        weight = start[:, :-1] @ axes
        found[c] = Logistic(weight, start[:, -1] - weight @ centre)
    return [found[c] for c in cs]


def _fitted(x: Tensor, labels: Tensor, c: float, size: Tensor, start: Tensor) -> Tensor:
    """Return the minimum, float64 [classes, D + 1] with the bias in the last column, for rows [N, D] along principal
    axes with singular values `size`."""
    count, classes = x.shape[0], start.shape[0]
    places = torch.arange(count, device=x.device)
    penalty = 1.0 / (c * count)  # so that the objective is a mean over rows
    share = (1 - 1 / classes) / classes  # second derivative of the cross-entropy of equal logits
    scale = torch.cat([penalty + share * size.square() / count, x.new_tensor([share])]).rsqrt()

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        solution = torch.from_numpy(flat).to(x.device).view(start.shape) * scale
        weight, bias = solution[:, :-1], solution[:, -1]
        log_share = torch.log_softmax(torch.addmm(bias, x, weight.T), 1)
        loss = 0.5 * penalty * weight.square().sum() - log_share[places, labels].mean()
        residual = log_share.exp()
        residual[places, labels] -= 1
        gradient = torch.cat([residual.T @ x / count + penalty * weight, residual.mean(0)[:, None]], 1) * scale
        return float(loss), gradient.cpu().numpy().ravel()

    found = minimize(
        objective, (start / scale).cpu().numpy().ravel(), jac=True, method="L-BFGS-B",
        options={"maxiter": _MOST_STEPS, "gtol": _TOLERANCE, "ftol": 1e-15, "maxls": 50, "maxcor": 20},
    )  # fmt: skip
    if found.status == 1:  # the limit of steps
        raise RunError(
            f"logistic regression with C {c:g} has not converged in {_MOST_STEPS:,} steps; give smaller values with "
            "--set lowshot.cs=[...]"
        )
    return torch.from_numpy(found.x).to(x.device).view(start.shape) * scale
