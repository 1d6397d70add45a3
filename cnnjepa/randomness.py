"""Random numbers as functions of their purpose, without generator state.

Every draw is computed from what it is used for (seed, purpose, epoch, step, …). Order, crops and masks therefore do not
depend on the number of workers or processes, and a resumed run continues bit for bit without a saved generator.
Vectorised draws use the SplitMix64 finaliser (Steele et al., OOPSLA 2014) as a counter-based generator, which gives the
same integers on every device.
"""

import contextlib
import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15
"""SplitMix64's increment, 2^64 divided by the golden ratio."""
_MASK64 = (1 << 64) - 1


def key(seed: int, purpose: str, *counters: int) -> int:
    """Return a 64-bit key for one draw. Different purposes and counters give unrelated keys."""
    text = f"{seed}/{purpose}/{'/'.join(map(str, counters))}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def uniform(seed: int, purpose: str, *counters: int) -> float:
    """Draw one number in [0, 1)."""
    return (key(seed, purpose, *counters) >> 11) * 2.0**-53


def generator(seed: int, purpose: str, *counters: int) -> torch.Generator:
    """Return a CPU generator for library functions that require one (permutations, initialisation)."""
    return torch.Generator().manual_seed(key(seed, purpose, *counters) >> 1)


@contextlib.contextmanager
def layer_randomness(device: torch.device) -> Iterator[None]:
    """Allow `seed_layers` to set torch's generators. Their previous state is restored at the end."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else [], device_type="cuda"):
        yield


def seed_layers(seed: int, purpose: str, *counters: int) -> None:
    """Seed torch's generators, from which random layers (dropout, stochastic depth) draw in their forward pass."""
    torch.manual_seed(key(seed, purpose, *counters) >> 1)


def _signed(value: int) -> int:
    value &= _MASK64
    return value - (1 << 64) if value >> 63 else value


def _shift(x: Tensor, bits: int) -> Tensor:
    """Shift int64 logically to the right; torch shifts arithmetically."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def mix64(x: Tensor) -> Tensor:
    """Apply SplitMix64's finaliser to int64 (two's complement wraps as unsigned 64-bit does). Every input bit affects
    every output bit."""
    x = (x ^ _shift(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift(x, 31)


def uniforms(draw_key: int, index_N: Tensor, count: int) -> Tensor:
    """Draw `count` numbers in [0, 1) for every index, float64 [N, count].

    Each number is a function of (draw_key, index) alone: it does not depend on the order of the indices or on which
    others are present.
    """
    stream_N1 = mix64(mix64(index_N.to(torch.int64) + _signed(GOLDEN)) ^ _signed(draw_key))[:, None]
    counter_1C = torch.arange(1, count + 1, device=index_N.device, dtype=torch.int64)[None] * _signed(GOLDEN)
    return _shift(mix64(stream_N1 + counter_1C), 11).to(torch.float64) * 2.0**-53
