"""A network that computes features of pixels and is not trained meanwhile."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from cnnjepa.data.batches import Normalizer

T = TypeVar("T")


class FrozenEncoder:
    """An encoder on a device, for pixels [B, K, H, W] as `evaluation_batches` gives them. It computes in eval mode,
    without gradients, and in float32 whatever `runtime.precision` the run trains with: the released code's probes run
    outside autocast. The network's mode is restored afterwards."""

    def __init__(self, network: nn.Module, normalize: Normalizer, device: torch.device) -> None:
        self.network, self.normalize, self.device = network, normalize, device

    @torch.inference_mode()
    def computed(self, function: Callable[[Tensor], T], pixels: Tensor) -> T:
        """Return `function` of the normalised images, where `function` is the network or uses it."""
        training = self.network.training
        self.network.eval()
        try:
            with torch.autocast(self.device.type, enabled=False):
                return function(self.normalize(pixels.to(self.device)))
        finally:
            self.network.train(training)

    @torch.inference_mode()
    def maps(self, pixels: Tensor) -> Tensor:
        """Return the last feature map, float32 [B, C, h, w] on the device."""
        features: Tensor = self.computed(self.network, pixels)
        return features.float()

    @torch.inference_mode()
    def pooled(self, pixels: Tensor) -> Tensor:
        """Return the map's mean over positions, float32 [B, C] on the CPU."""
        return self.maps(pixels).mean((2, 3)).cpu()
