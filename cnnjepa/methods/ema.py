"""Networks that follow others by moving average."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def follow(pairs: Iterable[tuple[nn.Module, nn.Module]], momentum: float) -> None:
    """Update ξ ← m ξ + (1 − m) θ for every (target, source), over parameters only. The target keeps its own running
    statistics."""
    both = [pair for target, source in pairs for pair in zip(target.parameters(), source.parameters(), strict=True)]
    targets: list[Tensor] = [p for p, _ in both]
    torch._foreach_lerp_(targets, [p.detach() for _, p in both], 1.0 - momentum)
