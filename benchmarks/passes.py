"""A network's passes, as works to be timed."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def forward(network: nn.Module, images: Tensor, precision: str) -> Callable[[], None]:
    """Without gradients. `precision`: "bf16" is autocast to it."""

    def work() -> None:
        with torch.no_grad(), _autocast(images, precision):
            network(images)

    return work


def both_ways(network: nn.Module, given: tuple[Tensor, ...], precision: str) -> Callable[[], None]:
    """Forward and backward of the mean square of what comes out; the gradients are dropped afterwards."""

    def work() -> None:
        with _autocast(given[0], precision):
            features = network(*given)
        features.float().square().mean().backward()
        network.zero_grad(set_to_none=True)

    return work


def _autocast(images: Tensor, precision: str) -> torch.autocast:
    return torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16")
