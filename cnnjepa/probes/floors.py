"""Floors: the accuracy without pretraining, of the encoder before training and of raw pixels."""

import contextlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cnnjepa.data.batches import Normalizer
from cnnjepa.data.evaluation import evaluation_batches
from cnnjepa.data.open import DataSet
from cnnjepa.data.resident import subset
from cnnjepa.data.source import ImageSource, spread
from cnnjepa.encoders import build_backbone, load_into
from cnnjepa.randomness import layer_randomness, seed_layers
from cnnjepa.schemas import DataConfig, PretrainConfig

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
    """Replace the network's batch-norm statistics by averages over training images of a run; see `calibrate_on`."""
    normalize = Normalizer(config.data, device, config.runtime.channels_last)
    seed, workers = config.runtime.seed, config.runtime.workers
    return calibrate_on(data.train, network, normalize, config.data, config.probe.resize, device, seed, workers)


def calibrate_on(
    source: ImageSource,
    network: nn.Module,
    normalize: Normalizer,
    section: DataConfig,
    resize: int | None,
    device: torch.device,
    seed: int = 0,
    workers: int = 0,
) -> nn.Module:
    """Replace the network's batch-norm statistics by averages over images of `source`, which are read as `section`
    says. `seed` is for layers that draw numbers. Returns the network in eval mode."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # plain average over batches
    images = subset(source, spread(source, min(_CALIBRATION_IMAGES, source.labels.numel())))
    network.train()
    loaded = evaluation_batches(images, section, resize, 128, workers)
    with torch.no_grad(), layer_randomness(device), contextlib.closing(loaded) as batches:
        seed_layers(seed, "calibration")
        for batch in batches:
            if batch.pixels.shape[0] > 1:
                network(normalize(batch.pixels.to(device)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return network.eval()
