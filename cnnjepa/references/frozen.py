"""Features of pixels from an encoder that a user names."""

import torch

from cnnjepa.data.batches import Normalizer
from cnnjepa.probes.frozen import FrozenEncoder
from cnnjepa.references.encoder import ReferencedEncoder

_WORKERS_ON_GPU = 4  # measured nowhere: decoding is slower than most networks on a GPU


def reading_processes(asked: int | None, device: torch.device) -> int:
    """Return the number of processes that read images for a frozen encoder, if `asked` leaves it open."""
    return (_WORKERS_ON_GPU if device.type == "cuda" else 0) if asked is None else asked


def frozen_encoder(encoder: ReferencedEncoder, device: torch.device) -> FrozenEncoder:
    """Move the encoder to the device, and return it with the normalisation of its inputs."""
    channels_last = device.type == "cuda"
    network = encoder.network.to(device)
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
    return FrozenEncoder(network, Normalizer(encoder.preprocessing.config, device, channels_last), device)
