"""LARS (arXiv 1708.03888): momentum SGD whose steps are scaled layer by layer."""

from collections.abc import Iterable
from typing import Any

import torch

_EPSILON = 1e-8  # keeps the ratio finite where both norms nearly vanish


class LARS(torch.optim.Optimizer):
    """Momentum SGD with layer-wise scaling: v ← μ v + λ (g + β w), w ← w − η v (equation 6).

    The scale of a layer is λ = trust · ‖w‖ / (‖g‖ + β ‖w‖). λ is 1 in groups whose weight decay β is 0, and for a
    parameter whose weights or gradient are all zero, as in the authors' runs (docs/sources.md#lars). The learning rate
    η is applied to v, not to what is added to it.
    """

    def __init__(
        self, params: Iterable[Any], lr: float, weight_decay: float, momentum: float = 0.9, trust: float = 0.001
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "trust": trust})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, p.grad, group)

    def _update(self, p: torch.Tensor, grad: torch.Tensor, group: dict[str, Any]) -> None:
        decay, state = group["weight_decay"], self.state[p]
        if decay:
            weight_norm, grad_norm = p.norm(), grad.norm()
            scale = group["trust"] * weight_norm / (grad_norm + decay * weight_norm + _EPSILON)
            alive = (weight_norm > 0) & (grad_norm > 0)
            grad = torch.where(alive, scale * (grad + decay * p), grad)
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(p)
        state["velocity"].mul_(group["momentum"]).add_(grad)
        p.sub_(group["lr"] * state["velocity"])
