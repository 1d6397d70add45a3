"""Features averaged over positions."""

from torch import Tensor, nn


def pooled(network: nn.Module, images_BCHW: Tensor) -> Tensor:
    """Return features averaged over positions, [B, C]."""
    features: Tensor = network(images_BCHW).mean((2, 3))
    return features
