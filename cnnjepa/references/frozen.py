"""Features of pixels from an encoder that a user names."""

import torch

from cnnjepa.data.batches import Normalizer
from cnnjepa.probes.frozen import FrozenEncoder
from cnnjepa.references.encoder import ReferencedEncoder


def frozen_encoder(encoder: ReferencedEncoder, device: torch.device) -> FrozenEncoder:
    """Move the encoder to the device, and return it with the normalisation of its inputs."""
    channels_last = device.type == "cuda"
    network = encoder.network.to(device)
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
    return FrozenEncoder(network, Normalizer(encoder.preprocessing.config, device, channels_last), device)
