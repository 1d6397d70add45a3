"""Construction of the config's optimiser over a method's trainable parameters."""

from typing import Any

import torch
from torch import nn

from cnnjepa.schemas import AdamWConfig, OptimizerConfig
from cnnjepa.training.lars import LARS


def build_optimizer(method: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return AdamW or LARS. The key `decays` of each parameter group says whether a weight-decay schedule changes it.

    AdamW is torch's fused implementation, which reads and writes every value once (docs/performance_step.md). It equals
    the loop over tensors to float32 rounding. A checkpoint that was written with the loop is resumed with the loop,
    because the optimiser's state records which of the two it belongs to.
    """
    if isinstance(config, AdamWConfig):
        return torch.optim.AdamW(
            _adamw_groups(method, config),
            lr=config.lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=True,
        )
    decays = lambda name, p: not any(word in name for word in config.excluded)  # noqa: E731
    groups = _groups(method, decays, config.weight_decay)
    return LARS(groups, config.lr, config.weight_decay, config.momentum, config.trust)


def _adamw_groups(method: nn.Module, config: AdamWConfig) -> Any:
    if config.decays == "all":
        return [p for p in method.parameters() if p.requires_grad]
    return _groups(method, lambda name, p: p.dim() > 1, config.weight_decay)


def _groups(method: nn.Module, decays: Any, weight_decay: float) -> list[dict[str, Any]]:
    named = [(name, p) for name, p in method.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in named if decays(name, p)], "weight_decay": weight_decay, "decays": True},
        {"params": [p for name, p in named if not decays(name, p)], "weight_decay": 0.0, "decays": False},
    ]
    return [group for group in groups if group["params"]]
