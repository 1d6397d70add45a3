"""Multinomial logistic regression with a squared penalty, fitted to convergence.

The objective is scikit-learn's: C · Σ cross-entropy + ½ ‖W‖², without a penalty on the bias. scipy's L-BFGS-B minimises
it in float64. With fewer rows than channels, the weights lie in the span of the rows, so the problem is solved in
coordinates of that span, which is exact and has fewer unknowns.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

_MOST_STEPS = 1000
_TOLERANCE = 1e-7  # largest component of the gradient of the mean loss over rows


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
    starts from the solution of the next smaller C. Computed on the device of `rows`."""
    x, basis = _in_span(rows.double())
    found: dict[float, Logistic] = {}
    start = np.zeros((classes, x.shape[1] + 1))
    for c in sorted(set(cs)):
        start = _fitted(x, labels, classes, c, start)
        solution = torch.from_numpy(start).to(x.device)
        weight = solution[:, :-1] if basis is None else solution[:, :-1] @ basis
        found[c] = Logistic(weight, solution[:, -1])
    return [found[c] for c in cs]


def _in_span(rows: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return (rows in an orthonormal basis of their span, the basis [r, D]); the rows themselves and None if that has
    no fewer columns."""
    if rows.shape[0] >= rows.shape[1]:
        return rows, None
    basis, triangle = torch.linalg.qr(rows.T)  # rows.T = basis · triangle
    return triangle.T, basis.T


def _fitted(x: Tensor, labels: Tensor, classes: int, c: float, start: np.ndarray) -> np.ndarray:
    """Return the minimum, float64 [classes, D + 1] with the bias in the last column."""
    count = x.shape[0]
    places = torch.arange(count, device=x.device)
    scale = 1.0 / (c * count)  # of the penalty, so that the objective is a mean over rows

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        solution = torch.from_numpy(flat.reshape(start.shape)).to(x.device)
        weight, bias = solution[:, :-1], solution[:, -1]
        log_share = torch.log_softmax(x @ weight.T + bias, 1)
        loss = -log_share[places, labels].mean() + 0.5 * scale * weight.square().sum()
        residual = log_share.exp()
        residual[places, labels] -= 1
        gradient = torch.cat([residual.T @ x / count + scale * weight, residual.mean(0)[:, None]], 1)
        return float(loss), gradient.cpu().numpy().ravel()

    found = minimize(
        objective, start.ravel(), jac=True, method="L-BFGS-B",
        options={"maxiter": _MOST_STEPS, "gtol": _TOLERANCE, "ftol": 1e-13, "maxls": 50},
    )  # fmt: skip
    return np.asarray(found.x).reshape(start.shape)
