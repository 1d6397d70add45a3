"""Feature maps of pixels."""

from collections.abc import Callable

import torch
from torch import Tensor

from cnnjepa.data.batches import Normalizer
from cnnjepa.references.encoder import ReferencedEncoder


def feature_maps(encoder: ReferencedEncoder, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Move the encoder to the device, and return a function: pixels [B, K, H, W], as `evaluation_batches` gives them →
    last feature map [B, C, h, w], float32, on the device. It computes in full float32, without gradients."""
    channels_last = device.type == "cuda"
    network = encoder.network.to(device)
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
    normalize = Normalizer(encoder.preprocessing.config, device, channels_last)

    @torch.inference_mode()
    def maps(pixels: Tensor) -> Tensor:
        with torch.autocast(device.type, enabled=False):
            features: Tensor = network(normalize(pixels.to(device)))
        return features.float()

    return maps
