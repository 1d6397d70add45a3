"""Random numbers that depend on their key and index alone."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cnnjepa.randomness import generator, key, mix64, uniform, uniforms


def test_the_mixer_is_splitmix64() -> None:
    """The published sequence of SplitMix64 for seed 1234567 (Rosetta Code, "Pseudo-random numbers/Splitmix64")."""
    golden = 0x9E3779B97F4A7C15
    states = [(1234567 + n * golden) % 2**64 for n in range(1, 6)]
    signed = torch.tensor([s - 2**64 if s >= 2**63 else s for s in states])
    assert [int(x) % 2**64 for x in mix64(signed)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def splitmix(x: int) -> int:
    """The finaliser on Python's integers."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) % 2**64
    return x ^ (x >> 31)


@given(draw_key=st.integers(0, 2**64 - 1), index=st.integers(0, 2**63 - 1), count=st.integers(1, 4))
def test_uniforms_are_those_of_unsigned_arithmetic(draw_key: int, index: int, count: int) -> None:
    golden = 0x9E3779B97F4A7C15
    stream = splitmix(splitmix((index + golden) % 2**64) ^ draw_key)
    expected = [(splitmix((stream + n * golden) % 2**64) >> 11) / 2**53 for n in range(1, count + 1)]
    assert uniforms(draw_key, torch.tensor([index]), count).tolist() == [expected]


@given(
    seed=st.integers(0, 2**40),
    indices=st.lists(st.integers(0, 2**62), min_size=1, max_size=12, unique=True),
    data=st.data(),
)
def test_a_draw_does_not_depend_on_order_company_or_count(seed: int, indices: list[int], data: st.DataObject) -> None:
    draw_key = key(seed, "purpose", 3)
    whole = uniforms(draw_key, torch.tensor(indices), 5)
    order = data.draw(st.permutations(range(len(indices))))
    assert torch.equal(uniforms(draw_key, torch.tensor([indices[place] for place in order]), 5), whole[order])
    assert torch.equal(uniforms(draw_key, torch.tensor(indices[:1]), 2), whole[:1, :2])
    assert torch.equal(uniforms(draw_key, torch.tensor(indices), 5), whole)
    assert ((whole >= 0) & (whole < 1)).all() and whole.dtype == torch.float64


@pytest.mark.parametrize("stride", [1, 128, 2**32, 2**53])
def test_uniforms_are_uniform_whatever_the_pattern_of_the_indices(stride: int) -> None:
    draws = uniforms(key(0, "test"), torch.arange(1000) * stride, 40).flatten().numpy()
    assert stats.kstest(draws, "uniform").pvalue > 1e-3
    counts = np.bincount((draws * 100).astype(int), minlength=100)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_neighbouring_draws_indices_keys_and_purposes_are_independent() -> None:
    """Pairs fill the unit square evenly (16 x 16 bins) and do not correlate, for every kind of neighbour."""
    index = torch.arange(40_000)
    base = uniforms(key(0, "crop", 5), index, 2)
    others = {
        "the next draw": base[:, 1],
        "the next index": uniforms(key(0, "crop", 5), index + 1, 1)[:, 0],
        "the next epoch": uniforms(key(0, "crop", 6), index, 1)[:, 0],
        "the next seed": uniforms(key(1, "crop", 5), index, 1)[:, 0],
        "another purpose": uniforms(key(0, "mask", 5), index, 1)[:, 0],
        "a neighbouring key": uniforms(key(0, "crop", 5) ^ 1, index, 1)[:, 0],
    }
    for name, other in others.items():
        one, two = base[:, 0].numpy(), other.numpy()
        assert abs(np.corrcoef(one, two)[0, 1]) < 5 / math.sqrt(len(one)), name
        counts, _, _ = np.histogram2d(one, two, bins=16, range=((0, 1), (0, 1)))
        assert stats.chisquare(counts.flatten()).pvalue > 1e-3, name


def test_single_uniforms_are_uniform_and_repeat() -> None:
    draws = [uniform(0, "block_size", step, 0) for step in range(20_000)]
    assert stats.kstest(draws, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(draws[1:], draws[:-1])[0, 1]) < 5 / math.sqrt(len(draws))
    assert draws[:50] == [uniform(0, "block_size", step, 0) for step in range(50)]
    assert all(0 <= draw < 1 for draw in draws)


def test_keys_of_different_draws_differ() -> None:
    """Digits that move from one counter to the next must not meet."""
    asked = [
        (1, "a", 23),
        (12, "a", 3),
        (1, "a", 2, 3),
        (1, "a", 2),
        (1, "a"),
        (1, "b"),
        (2, "a"),
        (1, "a", 0),
        (1, "a2", 3),
    ]
    assert len({key(*draw) for draw in asked}) == len(asked)
    assert all(0 <= key(*draw) < 2**64 for draw in asked)


def test_a_generator_is_named_by_what_it_is_for() -> None:
    one, again = (torch.rand(4, generator=generator(0, "order", 3)) for _ in range(2))
    assert torch.equal(one, again)
    for other in ((0, "order", 4), (1, "order", 3), (0, "init", 3)):
        assert not torch.equal(one, torch.rand(4, generator=generator(*other)))
