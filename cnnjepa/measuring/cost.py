"""Computational cost of a method, derived from the config: parameters and FLOPs."""

import copy
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cnnjepa.methods import Method, Pass, build_method
from cnnjepa.schemas import PretrainConfig


class MethodCost(NamedTuple):
    """Parameters and FLOPs of a method. One multiply-add counts as 2 FLOPs."""

    encoder_params: int
    predictor_params: int
    """Parameters of everything else that is trained: predictor, mask token, projection head, classifier."""
    flops_per_image: float
    """FLOPs of a training step per image, forward and backward, at the mean fraction of visible cells."""
    encoder_flops: float
    """FLOPs of one dense forward pass of the encoder."""
    feature_dim: int
    """Channels of the encoder's features."""


def method_cost(config: PretrainConfig, method: Method | None = None) -> MethodCost:
    """Count parameters and FLOPs on the meta device, where nothing is computed. A backward pass costs twice its forward
    pass, minus the input gradient of the first convolution."""
    method = method or build_method(config)
    encoder = method.probed_encoder(config.probed_encoder)
    count = sum(p.numel() for p in encoder.parameters())
    trainable = sum(p.numel() for p in method.parameters() if p.requires_grad)
    forwards = _Forwards()
    step = sum(_pass_flops(config, method, forwards))
    return MethodCost(count, trainable - count, step, forwards(encoder, config.image_shape)[0], method.feature_dim)


def pass_flops(config: PretrainConfig, method: Method) -> list[float]:
    """Return the FLOPs per image of each part of a training step, in the order of `method.passes`. Their sum is
    `flops_per_image`."""
    return _pass_flops(config, method, _Forwards())


def _pass_flops(config: PretrainConfig, method: Method, forwards: "_Forwards") -> list[float]:
    return [_step_flops(part, *forwards(part.module, part.shape)) for part in method.passes(config)]


class _Forwards:
    """A cache of `_forward_flops`, which is counted once for each module and input shape."""

    def __init__(self) -> None:
        self._counted: dict[tuple[int, tuple[int, ...]], tuple[float, float]] = {}

    def __call__(self, module: nn.Module, shape: tuple[int, ...]) -> tuple[float, float]:
        key = (id(module), shape)
        if key not in self._counted:
            self._counted[key] = _forward_flops(module, shape)
        return self._counted[key]


def _step_flops(part: Pass, forward: float, first: float) -> float:
    passes = 3 * forward - (first if part.sees_images else 0.0) if part.trained else forward
    return part.forwards * passes


def _forward_flops(module: nn.Module, shape: tuple[int, ...]) -> tuple[float, float]:
    """Return the FLOPs of the whole forward pass and of its first convolution or linear layer, for one input of
    `shape`."""
    meta = copy.deepcopy(module).to("meta").eval()
    layer = next((name for name, m in meta.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)), None)
    with FlopCounterMode(display=False) as counter:
        meta(torch.empty(1, *shape, device="meta"))
    if layer is None:
        return float(counter.get_total_flops()), 0.0
    named = f"{type(meta).__name__}.{layer}" if layer else type(meta).__name__
    first = counter.get_flop_counts().get(named, {})
    return float(counter.get_total_flops()), float(sum(first.values()))
