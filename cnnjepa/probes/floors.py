"""Floors: the accuracy without pretraining, of the encoder before training and of raw pixels."""

import contextlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cnnjepa.data.batches import Normalizer
from cnnjepa.data.evaluation import evaluation_batches
from cnnjepa.data.open import DataSet
from cnnjepa.data.resident import subset
from cnnjepa.data.source import spread
from cnnjepa.encoders import build_backbone, load_into
from cnnjepa.randomness import layer_randomness, seed_layers
from cnnjepa.schemas import PretrainConfig

# Enough for batch-norm means and variances to converge: 2,048 images x all positions.
_CALIBRATION_IMAGES = 2048


def untrained_encoder(
    config: PretrainConfig, data: DataSet, device: torch.device, initial: Mapping[str, Tensor] | None = None
) -> nn.Module:
    """Return the run's encoder before training, in eval mode: with random weights and batch-norm statistics averaged
    over training images, or with its `initial` weights, which bring their statistics."""
    network: nn.Module = build_backbone(config.encoder, config.runtime.seed, config.data.channels)
    if initial is not None:
        load_into(network, initial)
    network = network.to(device)
    if config.runtime.channels_last:
        network = network.to(memory_format=torch.channels_last)
    return network.eval() if initial is not None else calibrate(network, config, data, device)


def calibrate(network: nn.Module, config: PretrainConfig, data: DataSet, device: torch.device) -> nn.Module:
    """Replace the network's batch-norm statistics by averages over training images. Returns the network in eval
    mode."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # plain average over batches
    normalize = Normalizer(config.data, device, config.runtime.channels_last)
    few = min(_CALIBRATION_IMAGES, data.train.labels.numel())
    images = subset(data.train, spread(data.train, few))
    network.train()
    loaded = evaluation_batches(images, config.data, config.probe.resize, 128, config.runtime.workers)
    with torch.no_grad(), layer_randomness(device), contextlib.closing(loaded) as batches:
        seed_layers(config.runtime.seed, "calibration")
        for batch in batches:
            if batch.pixels.shape[0] > 1:
                network(normalize(batch.pixels.to(device)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return network.eval()
