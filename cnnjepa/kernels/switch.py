"""Which kernels are used on which GPUs.

A kernel is used only on hardware on which it was measured to be faster than torch's operations (MEASURED). The variable
CNNJEPA_KERNELS changes that: `off` uses none, `on` uses all of them on any GPU (to measure a card that is not in the
table: `make gpu-check`).
"""

import functools
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from cnnjepa.schemas.errors import ConfigError

MEASURED: dict[str, dict[tuple[int, int], str]] = {
    "gather": {},
    "batch_norm": {},
}
"""By kernel and compute capability: card, date and how much faster; docs/performance_gpu.md has the table."""

_required = 0

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def used(kernel: str, tensor: Tensor) -> bool:
    """Return whether `kernel` computes on this tensor. Raises ConfigError if CNNJEPA_KERNELS has no legal value."""
    if interpreted():
        return tensor.dtype in _DTYPES
    if tensor.device.type != "cuda" or tensor.dtype not in _DTYPES:
        return False
    return _required > 0 or kernel in in_use(tensor.device.index)


@contextmanager
def required() -> Iterator[None]:
    """Use all kernels on any GPU within the block, in every thread: CUDA graphs need them."""
    global _required
    _required += 1
    try:
        yield
    finally:
        _required -= 1


@functools.cache
def in_use(device: int) -> frozenset[str]:
    """Return the names of the kernels that are used on this GPU."""
    asked = os.environ.get("CNNJEPA_KERNELS", "measured")
    if asked not in ("measured", "on", "off"):
        raise ConfigError(f"CNNJEPA_KERNELS={asked}: must be measured, on or off")
    if asked == "off" or importlib.util.find_spec("triton") is None:
        return frozenset()
    if asked == "on":
        return frozenset(MEASURED)
    capability = torch.cuda.get_device_capability(device)
    return frozenset(name for name, cards in MEASURED.items() if capability in cards)


def interpreted() -> bool:
    """Return whether Triton runs kernels on the CPU, step by step (TRITON_INTERPRET=1, for tests)."""
    return os.environ.get("TRITON_INTERPRET") == "1"
