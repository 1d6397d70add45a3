"""Randomness is a function, not a state.

Every draw is computed from what it is for (seed, purpose, epoch, step, …), so order, crops and masks do not
depend on the number of workers or processes, and a resumed run continues bit for bit without saving any
generator. Vectorised draws use the SplitMix64 finaliser (Steele et al., OOPSLA 2014) as a counter-based
generator: the same integers on every device.
"""

import contextlib
import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_MASK64 = (1 << 64) - 1


def key(seed: int, purpose: str, *counters: int) -> int:
    """A 64-bit name for one draw: different purposes and counters give unrelated keys."""
    text = f"{seed}/{purpose}/{'/'.join(map(str, counters))}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def uniform(seed: int, purpose: str, *counters: int) -> float:
    """One number in [0, 1)."""
    return (key(seed, purpose, *counters) >> 11) * 2.0**-53


def generator(seed: int, purpose: str, *counters: int) -> torch.Generator:
    """A CPU generator for library functions that want one (permutations, initialisation)."""
    return torch.Generator().manual_seed(key(seed, purpose, *counters) >> 1)


@contextlib.contextmanager
def layer_randomness(device: torch.device) -> Iterator[None]:
    """Lets `seed_layers` set torch's generators, which the caller gets back as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else [], device_type="cuda"):
        yield


def seed_layers(seed: int, purpose: str, *counters: int) -> None:
    """Seeds torch's generators, from which layers that are random (dropout, stochastic depth) draw in their forward."""
    torch.manual_seed(key(seed, purpose, *counters) >> 1)


def _signed(value: int) -> int:
    value &= _MASK64
    return value - (1 << 64) if value >> 63 else value


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64, which torch shifts arithmetically."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's finaliser on int64 (two's complement wraps as unsigned 64-bit does)."""
    x = (x ^ _shift(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift(x, 31)


def uniforms(draw_key: int, index_N: Tensor, count: int) -> Tensor:
    """`count` numbers in [0, 1) for every index, float64 [N, count].

    A function of (draw_key, index) alone: neither the order nor the company of an index matters.
    """
    stream_N1 = _mix(_mix(index_N.to(torch.int64) + _signed(_GOLDEN)) ^ _signed(draw_key))[:, None]
    counter_1C = torch.arange(1, count + 1, device=index_N.device, dtype=torch.int64)[None] * _signed(_GOLDEN)
    return _shift(_mix(stream_N1 + counter_1C), 11).to(torch.float64) * 2.0**-53
