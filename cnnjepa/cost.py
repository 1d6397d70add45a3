"""What a method costs, computed from the config: parameters and FLOPs."""

import copy
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cnnjepa.methods import CNNJEPA, build_method
from cnnjepa.schemas import PretrainConfig


class MethodCost(NamedTuple):
    """Sizes of a method. FLOPs are 2 x multiply-adds."""

    encoder_params: int
    predictor_params: int
    """Predictor, token and projection head."""
    flops_per_image: float
    """A training step's, forward and backward, at the mean visible share."""
    encoder_flops: float
    """One dense forward of the encoder."""
    feature_dim: int
    """Channels of its features."""


def method_cost(config: PretrainConfig, method: CNNJEPA | None = None) -> MethodCost:
    """Counts on the meta device: nothing is computed. A backward costs twice its forward, less the input
    gradient of the first convolution; the packed context encoder's forward costs its
    visible share of a dense one."""
    method = method or build_method(config)
    count = sum(p.numel() for p in method.target_encoder.parameters())
    trainable = sum(p.numel() for p in method.parameters() if p.requires_grad)
    encoder, stem = _encoder_flops(method.target_encoder, config.data.image_size)
    predictor = _flops_at(method.predictor, method.token.numel(), config.grid)
    head = 0.0
    if isinstance(method.projection, nn.Conv2d):
        head = _flops_at(method.projection, method.projection.in_channels, config.grid)
    share = config.visible_share if config.encoder.backend == "packed" else 1.0  # masked computes every cell
    context = share * (3 * encoder - stem)
    step = (encoder + head) + context + 3 * (predictor + head)  # target, context, predictor
    return MethodCost(count, trainable - count, step, encoder, method.feature_dim)


def _encoder_flops(network: nn.Module, size: int) -> tuple[float, float]:
    """(the whole forward, its first convolution) for one image."""
    meta = _on_meta(network)
    with FlopCounterMode(display=False) as counter:
        meta(torch.empty(1, 3, size, size, device="meta"))
    by_module = counter.get_flop_counts()
    stem = sum(next(flops for name, flops in by_module.items() if name.endswith(".conv1")).values())
    return float(counter.get_total_flops()), float(stem)


def _flops_at(module: nn.Module, channels: int, grid: int) -> float:
    """One forward on a feature map [1, channels, grid, grid]."""
    meta = _on_meta(module)
    with FlopCounterMode(display=False) as counter:
        meta(torch.empty(1, channels, grid, grid, device="meta"))
    return float(counter.get_total_flops())


def _on_meta(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).to("meta").eval()
