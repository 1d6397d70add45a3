"""Masks have the authors' measured properties exactly, and are functions of (seed, step, slot); so is all randomness.

Shapes: B samples, G cells a side, N blocks.
"""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy import stats

from cnnjepa.masks import Masks, sample_masks
from cnnjepa.masks.blocks import draw_block_size
from cnnjepa.randomness import generator, key, mix64, uniform, uniforms
from cnnjepa.schemas import BlockMasking, MaskingConfig, MixedMasking, MultiBlockMasking, RandomMasking
from cnnjepa.schemas.block_sizes import block_sizes, cover_rates, expected_targets, target_rates

GRID = 7
SCALE, ASPECT = (0.15, 0.2), (0.75, 1.5)
FAITHFUL = MultiBlockMasking(sampler="faithful")
UNBIASED = MultiBlockMasking(sampler="unbiased")
EVERY_STRATEGY: list[MaskingConfig] = [
    RandomMasking(),
    BlockMasking(),
    BlockMasking(sampler="unbiased"),
    FAITHFUL,
    UNBIASED,
    MixedMasking(),
]


# --- Independent references: brute force, no closed form ----------------------------------------------------------


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


def placements(grid: int, height: int, width: int, faithful: bool) -> np.ndarray:
    """Every block that can be drawn, equally likely, as cells in the bits of a uint64."""
    rows = grid - height if faithful else grid - height + 1
    columns = grid - width if faithful else grid - width + 1
    blocks = []
    for top, left in itertools.product(range(rows), range(columns)):
        blocks.append(sum(1 << (r * grid + c) for r in range(top, top + height) for c in range(left, left + width)))
    return np.array(blocks, dtype=np.uint64)


def unions(grid: int, height: int, width: int, faithful: bool, num_blocks: int = 4) -> np.ndarray:
    """The union of every ordered choice of `num_blocks` blocks: all outcomes, equally likely."""
    blocks = placements(grid, height, width, faithful)
    outcomes = blocks
    for _ in range(num_blocks - 1):
        outcomes = (outcomes[:, None] | blocks[None, :]).reshape(-1)
    return outcomes


def mean_targets(outcomes: np.ndarray) -> float:
    return float(np.bitwise_count(outcomes).mean())


def rates(outcomes: np.ndarray, grid: int) -> np.ndarray:
    """How often each cell is a target, [G, G]."""
    bits = [((outcomes >> np.uint64(cell)) & np.uint64(1)).mean() for cell in range(grid * grid)]
    return np.array(bits).reshape(grid, grid)


SIZES = {(3, 3): 0.62, (2, 3): 0.19, (4, 3): 0.11, (4, 2): 0.08}  # docs/sources.md#block-sizes, in hundredths


# --- Block sizes and expectations ---------------------------------------------------------------------------------


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


# --- What is drawn ------------------------------------------------------------------------------------------------


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
    # A block of 5 or 6 cells a side always covers the cells within 5 of both borders: the centre.
    assert context.all() or (isinstance(masking, BlockMasking) and not context[GRID // 2, GRID // 2])


def test_random_keeps_exactly_20_of_49_and_every_cell_as_often() -> None:
    context = torch.cat([sample_masks(RandomMasking(), GRID, torch.arange(256), 3, step).context for step in range(20)])
    assert (context.sum((1, 2)) == 20).all()
    p, n = 20 / 49, context.shape[0]
    assert (context.double().mean(0) - p).abs().max().item() < 5 * math.sqrt(p * (1 - p) / n)


def test_random_pairs_of_cells_are_visible_together_as_often_as_in_a_draw_without_replacement() -> None:
    slots = torch.arange(4096)
    context = sample_masks(RandomMasking(), GRID, slots, 4, 0).context.flatten(1).double()
    together = context.T @ context / slots.numel()
    p = 20 / 49 * 19 / 48
    off_diagonal = together[~torch.eye(49, dtype=torch.bool)]
    assert (off_diagonal - p).abs().max().item() < 5 * math.sqrt(p * (1 - p) / slots.numel())


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5, 0.6, 0.75, 0.9])
@pytest.mark.parametrize("grid", [4, 7, 8])
def test_random_keeps_the_rounded_share(ratio: float, grid: int) -> None:
    context = sample_masks(RandomMasking(ratio=ratio), grid, torch.arange(8), 0, 0).context
    assert (context.sum((1, 2)) == round(grid**2 * (1 - ratio))).all()


def is_random(masks: Masks) -> bool:
    """Whether every sample shows exactly 20 cells; block batches of 8 samples practically never do."""
    return bool((masks.context.sum((1, 2)) == 20).all())


def test_mixed_is_multi_block_in_three_quarters_of_the_steps() -> None:
    steps, slots = 1500, torch.arange(8)
    random = sum(is_random(sample_masks(MixedMasking(), GRID, slots, 5, step)) for step in range(steps))
    assert random / steps == pytest.approx(0.25, abs=4.5 * math.sqrt(0.25 * 0.75 / steps))


@pytest.mark.parametrize(("probability", "random"), [(0.0, True), (1.0, False)])
def test_mixed_with_certainty_is_one_strategy(probability: float, random: bool) -> None:
    masking = MixedMasking(multi_block_probability=probability)
    drawn = [sample_masks(masking, GRID, torch.arange(8), 5, step) for step in range(20)]
    assert all(is_random(masks) == random for masks in drawn)


def test_a_mixed_step_is_exactly_one_of_the_two_strategies_masks() -> None:
    slots = torch.arange(16)
    seen = set()
    for step in range(20):
        mixed = sample_masks(MixedMasking(), GRID, slots, 6, step).context
        plain = {
            "random": sample_masks(RandomMasking(), GRID, slots, 6, step).context,
            "multi_block": sample_masks(FAITHFUL, GRID, slots, 6, step).context,
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


# --- What always holds --------------------------------------------------------------------------------------------


def rectangle(mask_GG: torch.Tensor) -> tuple[int, int]:
    """Height and width of a mask that is one full rectangle."""
    rows, columns = mask_GG.any(1).nonzero()[:, 0], mask_GG.any(0).nonzero()[:, 0]
    height, width = int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
    assert int(mask_GG.sum()) == height * width
    return height, width


def test_the_block_size_is_shared_by_the_batch_and_differs_between_steps() -> None:
    one = MultiBlockMasking(num_blocks=1)
    seen = set()
    for step in range(30):
        target = sample_masks(one, GRID, torch.arange(32), 8, step).target
        (size,) = {rectangle(mask) for mask in target}
        assert size == draw_block_size(one, GRID, 8, step)
        assert len({mask.flatten().numpy().tobytes() for mask in target}) > 4  # positions are a sample's own
        seen.add(size)
    assert seen <= SIZES.keys() and len(seen) > 1


def test_a_blocks_size_and_the_mixed_choice_do_not_depend_on_the_slots() -> None:
    for step in range(30):
        ranks = [
            sample_masks(MixedMasking(num_blocks=1), GRID, torch.arange(first, first + 16), 9, step)
            for first in (0, 512)
        ]
        assert is_random(ranks[0]) == is_random(ranks[1])
        if not is_random(ranks[0]):
            assert len({rectangle(mask) for masks in ranks for mask in masks.target}) == 1


def test_the_single_block_is_one_large_rectangle() -> None:
    masking = BlockMasking()
    for step in range(20):
        masks = sample_masks(masking, GRID, torch.arange(16), 10, step)
        (size,) = {rectangle(mask) for mask in masks.target}
        assert size in {(s.height, s.width) for s in block_sizes(GRID, masking.scale, masking.aspect, 5)}
        assert 0.5 < size[0] * size[1] / 49 < 0.75  # I-JEPA's single block covers 0.6
        assert masks.context.sum() == 16 * (49 - size[0] * size[1])


@pytest.mark.parametrize("masking", EVERY_STRATEGY)
@pytest.mark.parametrize("grid", [6, 7, 8, 14])
def test_context_and_target_partition_the_grid(masking: MaskingConfig, grid: int) -> None:
    masking.check(grid)
    for step in range(4):
        masks = sample_masks(masking, grid, torch.arange(16), 11, step)
        assert masks.context.shape == masks.target.shape == (16, grid, grid)
        assert masks.context.dtype == masks.target.dtype == torch.bool
        assert (masks.context ^ masks.target).all()
        assert masks.context.flatten(1).any(1).all() and masks.target.flatten(1).any(1).all()


@pytest.mark.parametrize("min_keep", [5, 9, 14])
def test_no_context_is_as_small_as_min_keep(min_keep: int) -> None:
    """Four 5x5 blocks on an 8x8 grid leave about 15 cells, and 0 to 39, so that small contexts are drawn again."""
    masking = MultiBlockMasking(
        num_blocks=4, scale=(0.4, 0.4), aspect=(1.0, 1.0), min_keep=min_keep, sampler="unbiased"
    )
    free = masking.model_copy(update={"min_keep": 0})
    slots = torch.arange(512)
    redrawn = 0
    for step in range(4):
        context = sample_masks(masking, 8, slots, 12, step).context
        first = sample_masks(free, 8, slots, 12, step).context
        assert context.sum((1, 2)).min() > min_keep
        enough = first.sum((1, 2)) > min_keep
        assert torch.equal(context[enough], first[enough])  # only the small ones are drawn again
        redrawn += int((~enough).sum())
    assert redrawn > 0


def test_blocks_of_at_most_min_keep_cells_are_not_drawn() -> None:
    masking = MultiBlockMasking(num_blocks=1, min_keep=8)
    areas = {int(sample_masks(masking, GRID, torch.arange(2), 13, step).target[0].sum()) for step in range(60)}
    assert areas == {9, 12}


@settings(max_examples=60, deadline=None)
@given(
    grid=st.integers(3, 12),
    least=st.floats(0.02, 0.9),
    span=st.floats(0, 0.4),
    narrow=st.floats(0.4, 1.5),
    wide=st.floats(1, 2),
    num_blocks=st.integers(1, 12),
    min_keep=st.integers(0, 12),
    sampler=st.sampled_from(["faithful", "unbiased"]),
    seed=st.integers(0, 2**31),
)
@example(grid=7, least=0.7, span=0.1, narrow=0.75, wide=2.0, num_blocks=64, min_keep=5, sampler="unbiased", seed=0)
@example(grid=7, least=0.0625, span=0.0, narrow=0.4, wide=1.8753471714390835, num_blocks=1, min_keep=2,
         sampler="faithful", seed=0)  # fmt: skip
@example(grid=6, least=0.75, span=0.0, narrow=1.0, wide=1.0, num_blocks=1, min_keep=11, sampler="faithful", seed=0)
def test_what_passes_the_check_at_load_time_can_be_drawn(
    grid: int,
    least: float,
    span: float,
    narrow: float,
    wide: float,
    num_blocks: int,
    min_keep: int,
    sampler: str,
    seed: int,
) -> None:
    masking = MultiBlockMasking(
        scale=(least, min(1.0, least + span)),
        aspect=(narrow, narrow * wide),
        num_blocks=num_blocks,
        min_keep=min_keep,
        sampler=sampler,
    )
    try:
        masking.check(grid)
    except ValueError:
        assume(False)
    for step in range(3):
        masks = sample_masks(masking, grid, torch.arange(4), seed, step)
        assert masks.context.sum((1, 2)).min() > min_keep
        assert masks.target.sum((1, 2)).min() > min_keep


# --- Masks are functions of (seed, step, slot) --------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    masking=st.sampled_from(EVERY_STRATEGY),
    seed=st.integers(0, 2**40),
    step=st.integers(0, 2**40),
    slots=st.lists(st.integers(0, 2**40), min_size=1, max_size=8, unique=True),
    data=st.data(),
)
def test_a_mask_depends_on_seed_step_and_slot_alone(
    masking: MaskingConfig, seed: int, step: int, slots: list[int], data: st.DataObject
) -> None:
    whole = sample_masks(masking, GRID, torch.tensor(slots), seed, step)
    order = data.draw(st.permutations(range(len(slots))))
    few = order[: data.draw(st.integers(1, len(slots)))]
    part = sample_masks(masking, GRID, torch.tensor([slots[place] for place in few]), seed, step)
    assert torch.equal(part.context, whole.context[few])
    assert torch.equal(part.target, whole.target[few])


@pytest.mark.parametrize("masking", EVERY_STRATEGY)
def test_two_ranks_draw_the_two_halves_of_the_global_batch(masking: MaskingConfig) -> None:
    whole = sample_masks(masking, GRID, torch.arange(16), 14, 3)
    for rank in (0, 1):
        own = sample_masks(masking, GRID, torch.arange(8 * rank, 8 * rank + 8), 14, 3)
        assert torch.equal(own.target, whole.part(8 * rank, 8 * rank + 8).target)
        assert torch.equal(own.context, whole.part(8 * rank, 8 * rank + 8).context)


@pytest.mark.parametrize("masking", EVERY_STRATEGY)
def test_another_seed_or_step_draws_other_masks(masking: MaskingConfig) -> None:
    slots = torch.arange(32)
    drawn = [sample_masks(masking, GRID, slots, seed, step).context for seed in (0, 1) for step in (0, 1)]
    for one, other in itertools.combinations(drawn, 2):
        assert not torch.equal(one, other)


def test_drawing_masks_leaves_torchs_generator_alone() -> None:
    before = torch.get_rng_state()
    for masking in EVERY_STRATEGY:
        sample_masks(masking, GRID, torch.arange(4), 0, 0)
    assert torch.equal(torch.get_rng_state(), before)


# --- Randomness ---------------------------------------------------------------------------------------------------


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
