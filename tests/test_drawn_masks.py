"""Drawn masks have the frequencies that all outcomes give.

Shapes: B samples, G cells per side, N blocks.
"""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from mask_references import ASPECT, FAITHFUL, GRID, SCALE, SIZES, UNBIASED, is_random, mean_targets, rates, unions

from cnnjepa.masks import sample_masks
from cnnjepa.masks.blocks import draw_block_size
from cnnjepa.schemas import BlockMasking, MaskingConfig, MixedMasking, MultiBlockMasking, RandomMasking
from cnnjepa.schemas.block_sizes import block_sizes


def test_drawn_block_sizes_have_the_exact_frequencies() -> None:
    steps = 20_000
    drawn = Counter(draw_block_size(FAITHFUL, GRID, seed=0, step=step) for step in range(steps))
    for size in block_sizes(GRID, SCALE, ASPECT, 5):
        p = size.probability
        deviation = math.sqrt(p * (1 - p) / steps)  # 4.5 of them: one false alarm in 150,000
        assert drawn[size.height, size.width] / steps == pytest.approx(p, abs=4.5 * deviation)
    assert drawn.keys() == SIZES.keys()


@pytest.mark.parametrize("masking", [FAITHFUL, UNBIASED])
def test_drawn_masks_have_the_exact_rates_given_the_size(masking: MultiBlockMasking) -> None:
    """Conditioned on the size, samples are independent, so the sampling error is binomial."""
    faithful = masking.sampler == "faithful"
    drawn: dict[tuple[int, int], list[torch.Tensor]] = {}
    for step in range(120):
        size = draw_block_size(masking, GRID, seed=1, step=step)
        drawn.setdefault(size, []).append(sample_masks(masking, GRID, torch.arange(256), 1, step).target)
    assert drawn.keys() == SIZES.keys()
    total, variance = 0.0, 0.0
    for (height, width), batches in drawn.items():
        target = torch.cat(batches).double()
        outcomes = unions(GRID, height, width, faithful)
        exact, n = rates(outcomes, GRID), target.shape[0]
        allowed = 5 * np.sqrt(exact * (1 - exact) / n) + 1e-12
        assert (np.abs(target.mean(0).numpy() - exact) <= allowed).all()
        spread = np.bitwise_count(outcomes).std()
        assert target.sum((1, 2)).mean().item() == pytest.approx(mean_targets(outcomes), abs=5 * spread / math.sqrt(n))
        p = next(s.probability for s in block_sizes(GRID, SCALE, ASPECT, 5) if (s.height, s.width) == (height, width))
        total += p * target.sum((1, 2)).mean().item()
        variance += (p * spread) ** 2 / n
    assert total == pytest.approx(21.52 if faithful else 24.35, abs=0.005 + 5 * math.sqrt(variance))


def test_faithful_never_touches_the_last_row_and_column() -> None:
    for masking in (FAITHFUL, BlockMasking(), MixedMasking(multi_block_probability=1.0)):
        for step in range(30):
            target = sample_masks(masking, GRID, torch.arange(64), 2, step).target
            assert not target[:, -1].any() and not target[:, :, -1].any()


@pytest.mark.parametrize("masking", [UNBIASED, BlockMasking(sampler="unbiased"), RandomMasking()])
def test_unbiased_reaches_every_cell_as_target_and_as_context(masking: MaskingConfig) -> None:
    drawn = [sample_masks(masking, GRID, torch.arange(64), 2, step) for step in range(30)]
    assert torch.cat([masks.target for masks in drawn]).any(0).all()
    context = torch.cat([masks.context for masks in drawn]).any(0)
    # A block of 5 or 6 cells per side always covers the cells within 5 of both borders: the centre.
    assert context.all() or (isinstance(masking, BlockMasking) and not context[GRID // 2, GRID // 2])


def test_random_keeps_exactly_20_of_49_and_every_cell_as_often() -> None:
    context = torch.cat([sample_masks(RandomMasking(), GRID, torch.arange(256), 3, step).context for step in range(20)])
    assert (context.sum((1, 2)) == 20).all()
    p, n = 20 / 49, context.shape[0]
    assert (context.double().mean(0) - p).abs().max().item() < 5 * math.sqrt(p * (1 - p) / n)


def test_random_pairs_of_cells_are_visible_together_as_often_as_in_a_draw_without_replacement() -> None:
    indices = torch.arange(4096)
    context = sample_masks(RandomMasking(), GRID, indices, 4, 0).context.flatten(1).double()
    together = context.T @ context / indices.numel()
    p = 20 / 49 * 19 / 48
    off_diagonal = together[~torch.eye(49, dtype=torch.bool)]
    assert (off_diagonal - p).abs().max().item() < 5 * math.sqrt(p * (1 - p) / indices.numel())


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5, 0.6, 0.75, 0.9])
@pytest.mark.parametrize("grid", [4, 7, 8])
def test_random_keeps_the_rounded_share(ratio: float, grid: int) -> None:
    context = sample_masks(RandomMasking(ratio=ratio), grid, torch.arange(8), 0, 0).context
    assert (context.sum((1, 2)) == round(grid**2 * (1 - ratio))).all()


def test_mixed_is_multi_block_in_three_quarters_of_the_steps() -> None:
    steps, indices = 1500, torch.arange(8)
    random = sum(is_random(sample_masks(MixedMasking(), GRID, indices, 5, step)) for step in range(steps))
    assert random / steps == pytest.approx(0.25, abs=4.5 * math.sqrt(0.25 * 0.75 / steps))


@pytest.mark.parametrize(("probability", "random"), [(0.0, True), (1.0, False)])
def test_mixed_with_certainty_is_one_strategy(probability: float, random: bool) -> None:
    masking = MixedMasking(multi_block_probability=probability)
    drawn = [sample_masks(masking, GRID, torch.arange(8), 5, step) for step in range(20)]
    assert all(is_random(masks) == random for masks in drawn)


def test_a_mixed_step_is_exactly_one_of_the_two_strategies_masks() -> None:
    indices = torch.arange(16)
    seen = set()
    for step in range(20):
        mixed = sample_masks(MixedMasking(), GRID, indices, 6, step).context
        plain = {
            "random": sample_masks(RandomMasking(), GRID, indices, 6, step).context,
            "multi_block": sample_masks(FAITHFUL, GRID, indices, 6, step).context,
        }
        (which,) = [name for name, context in plain.items() if torch.equal(context, mixed)]
        seen.add(which)
    assert seen == {"random", "multi_block"}


@pytest.mark.parametrize(("sampler", "share"), [("faithful", 0.5226), ("unbiased", 0.4794)])
def test_mixed_mean_visible_share(sampler: str, share: float) -> None:
    masking = MixedMasking(sampler=sampler)
    targets = {"faithful": 21.52, "unbiased": 24.35}[sampler]
    assert masking.mean_context(GRID) / 49 == pytest.approx(share, abs=1e-4)
    assert masking.mean_context(GRID) == pytest.approx(0.75 * (49 - targets) + 0.25 * 20, abs=0.005)
    shares = [sample_masks(masking, GRID, torch.arange(64), 7, step).context.double().mean() for step in range(600)]
    drawn = torch.stack(shares)
    assert drawn.mean().item() == pytest.approx(share, abs=4.5 * drawn.std().item() / math.sqrt(600))
