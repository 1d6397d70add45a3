"""Properties of every mask; a mask is a function of seed, step and global batch index.

Shapes: B samples, grid side G in cells, N blocks.
"""

import itertools

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from mask_references import EVERY_STRATEGY, GRID, SIZES, is_random

from cnnjepa.masks import sample_masks
from cnnjepa.masks.blocks import draw_block_size
from cnnjepa.schemas import BlockMasking, MaskingConfig, MixedMasking, MultiBlockMasking
from cnnjepa.schemas.block_sizes import block_sizes


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


def test_a_blocks_size_and_the_mixed_choice_do_not_depend_on_the_sample() -> None:
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
    indices = torch.arange(512)
    redrawn = 0
    for step in range(4):
        context = sample_masks(masking, 8, indices, 12, step).context
        first = sample_masks(free, 8, indices, 12, step).context
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


@settings(max_examples=60, deadline=None)
@given(
    masking=st.sampled_from(EVERY_STRATEGY),
    seed=st.integers(0, 2**40),
    step=st.integers(0, 2**40),
    indices=st.lists(st.integers(0, 2**40), min_size=1, max_size=8, unique=True),
    data=st.data(),
)
def test_a_mask_depends_on_seed_step_and_slot_alone(
    masking: MaskingConfig, seed: int, step: int, indices: list[int], data: st.DataObject
) -> None:
    whole = sample_masks(masking, GRID, torch.tensor(indices), seed, step)
    order = data.draw(st.permutations(range(len(indices))))
    few = order[: data.draw(st.integers(1, len(indices)))]
    part = sample_masks(masking, GRID, torch.tensor([indices[place] for place in few]), seed, step)
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
    indices = torch.arange(32)
    drawn = [sample_masks(masking, GRID, indices, seed, step).context for seed in (0, 1) for step in (0, 1)]
    for one, other in itertools.combinations(drawn, 2):
        assert not torch.equal(one, other)


def test_drawing_masks_leaves_torchs_generator_alone() -> None:
    before = torch.get_rng_state()
    for masking in EVERY_STRATEGY:
        sample_masks(masking, GRID, torch.arange(4), 0, 0)
    assert torch.equal(torch.get_rng_state(), before)
