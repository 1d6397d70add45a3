"""Sizes of blocks and expected targets, against all outcomes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mask_references import ASPECT, FAITHFUL, GRID, SCALE, SIZES, UNBIASED, mean_targets, rates, unions

from cnnjepa.schemas.block_sizes import block_sizes, cover_rates, expected_targets, target_rates


def counted_sizes(grid: int, min_keep: int, comb: int) -> dict[tuple[int, int], float]:
    """Share of every block size over `comb` evenly spaced values of the one uniform draw
    (docs/sources.md#block-sizes)."""
    u = (np.arange(comb) + 0.5) / comb
    area = np.floor(grid * grid * (SCALE[0] + u * (SCALE[1] - SCALE[0])))
    a = ASPECT[0] + u * (ASPECT[1] - ASPECT[0])
    height, width = np.rint(np.sqrt(area * a)).astype(int), np.rint(np.sqrt(area / a)).astype(int)
    kept = height * width > min_keep
    sizes, counts = np.unique(np.stack([height[kept], width[kept]], 1), axis=0, return_counts=True)
    return {(int(h), int(w)): count / kept.sum() for (h, w), count in zip(sizes, counts, strict=True)}


def test_block_sizes_on_7x7_are_the_measured_ones() -> None:
    sizes = {(s.height, s.width): s.probability for s in block_sizes(GRID, SCALE, ASPECT, min_keep=5)}
    assert {size: round(p, 2) for size, p in sizes.items()} == SIZES
    assert sum(sizes.values()) == pytest.approx(1, abs=1e-12)
    counted = counted_sizes(GRID, 5, comb=1_000_000)
    assert counted.keys() == sizes.keys()
    for size, probability in counted.items():
        assert sizes[size] == pytest.approx(probability, abs=1e-5)  # the comb errs by 1e-6 a breakpoint


@pytest.mark.parametrize("grid", [5, 6, 8, 12, 14, 16])
@pytest.mark.parametrize("min_keep", [0, 5, 10])
def test_block_sizes_on_other_grids_are_those_of_the_formula(grid: int, min_keep: int) -> None:
    sizes = {(s.height, s.width): s.probability for s in block_sizes(grid, SCALE, ASPECT, min_keep)}
    counted = counted_sizes(grid, min_keep, comb=100_000) if sizes else {}
    assert {size for size, p in sizes.items() if p > 1e-4} == {size for size, p in counted.items() if p > 1e-4}
    for size, probability in counted.items():
        assert sizes[size] == pytest.approx(probability, abs=2e-4)


def test_no_block_exceeds_five_cells_on_a_4x4_grid() -> None:
    assert block_sizes(4, SCALE, ASPECT, min_keep=5) == []


@pytest.mark.parametrize(("faithful", "published"), [(True, 21.52), (False, 24.35)])
def test_expected_targets_on_7x7_are_those_of_all_outcomes(faithful: bool, published: float) -> None:
    sizes = block_sizes(GRID, SCALE, ASPECT, 5)
    by_hand = sum(s.probability * mean_targets(unions(GRID, s.height, s.width, faithful)) for s in sizes)
    exact = expected_targets(GRID, sizes, 4, faithful)
    assert exact == pytest.approx(by_hand, abs=1e-9)
    assert round(exact, 2) == published
    masking = FAITHFUL if faithful else UNBIASED
    assert masking.expected_targets(GRID) == exact
    assert masking.mean_context(GRID) == pytest.approx(49 - by_hand, abs=1e-9)


@pytest.mark.parametrize("faithful", [True, False])
def test_target_rates_are_those_of_all_outcomes(faithful: bool) -> None:
    mixed = np.zeros((GRID, GRID))
    for size in block_sizes(GRID, SCALE, ASPECT, 5):
        by_hand = rates(unions(GRID, size.height, size.width, faithful), GRID)
        np.testing.assert_allclose(target_rates(GRID, size, 4, faithful), by_hand, atol=1e-12)
        mixed += size.probability * by_hand
    if faithful:
        assert round(mixed[0, 0], 2) == 0.23  # a corner that blocks reach
        # The centre; 0.96 in batches of 3x3 blocks.
        assert round(mixed[3, 3], 2) == round(mixed.max(), 2) == 0.92
        assert mixed[-1].max() == mixed[:, -1].max() == 0
    else:
        assert mixed.min() > 0.05


@given(grid=st.integers(2, 9), data=st.data(), faithful=st.booleans())
def test_cover_rates_sum_to_the_blocks_side(grid: int, data: st.DataObject, faithful: bool) -> None:
    side = data.draw(st.integers(1, grid - 1))
    covered = cover_rates(grid, side, faithful)
    assert math.isclose(sum(covered), side)
    assert (covered[-1] == 0) == faithful
