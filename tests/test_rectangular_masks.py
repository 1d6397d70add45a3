"""Masks on grids whose rows and columns differ, against I-JEPA's definition and against enumeration."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch

from cnnjepa.masks import sample_masks
from cnnjepa.masks.context_blocks import draw_context_blocks
from cnnjepa.schemas import BlockMasking, ConfigError, IJEPAMasking, MixedMasking, MultiBlockMasking, RandomMasking
from cnnjepa.schemas.block_sizes import BlockSize, block_sizes, target_rates
from cnnjepa.schemas.extent import Extent

GRIDS = [(10, 6), (6, 10), (5, 12), (32, 20), (3, 32)]


def ijepas_block(u: float, height: int, width: int, scale: tuple[float, float], aspect: tuple[float, float]):  # type: ignore[no-untyped-def]
    """The steps of I-JEPA's collator for one uniform draw, written out: the area from the scale, both sides from the
    aspect, and each side shortened until it is below the grid's."""
    area = int(height * width * (scale[0] + u * (scale[1] - scale[0])))
    ratio = aspect[0] + u * (aspect[1] - aspect[0])
    h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    while h >= height:
        h -= 1
    while w >= width:
        w -= 1
    return h, w


@pytest.mark.parametrize(("rows", "columns"), [*GRIDS, (32, 32)])
@pytest.mark.parametrize(("scale", "aspect"), [((0.15, 0.2), (0.75, 1.5)), ((0.85, 1.0), (1.0, 1.0))])
def test_block_sizes_are_those_of_ijepas_definition(
    rows: int, columns: int, scale: tuple[float, float], aspect: tuple[float, float]
) -> None:
    least, draws = 5, 20_000
    counted = Counter(ijepas_block((n + 0.5) / draws, rows, columns, scale, aspect) for n in range(draws))
    kept = {size: count for size, count in counted.items() if size[0] * size[1] > least}
    ours = {(s.height, s.width): s.probability for s in block_sizes((rows, columns), scale, aspect, least)}
    shares = {size: count / sum(kept.values()) for size, count in kept.items()}
    for size in ours.keys() | shares.keys():
        assert ours.get(size, 0.0) == pytest.approx(shares.get(size, 0.0), abs=2e-3), size


def test_block_sizes_of_the_transposed_grid_are_transposed() -> None:
    for aspect in (0.6, 1.0, 1.7):
        one = block_sizes((10, 6), (0.1, 0.3), (aspect, aspect), 2)
        other = block_sizes((6, 10), (0.1, 0.3), (1 / aspect, 1 / aspect), 2)
        transposed = {(size.width, size.height): size.probability for size in other}
        assert {(size.height, size.width): pytest.approx(size.probability) for size in one} == transposed


@pytest.mark.parametrize("faithful", [True, False])
def test_target_rates_are_those_of_all_placements(faithful: bool) -> None:
    rows, columns, height, width = 5, 7, 2, 4
    edge = 0 if faithful else 1
    placed = []
    for top, left in itertools.product(range(rows - height + edge), range(columns - width + edge)):
        block = np.zeros((rows, columns), bool)
        block[top : top + height, left : left + width] = True
        placed.append(block)
    expected = np.mean([one | other for one, other in itertools.product(placed, placed)], axis=0)
    assert np.allclose(target_rates((rows, columns), BlockSize(height, width, 1.0), 2, faithful), expected)


@pytest.mark.parametrize(("rows", "columns"), GRIDS[:4])
@pytest.mark.parametrize("sampler", ["faithful", "unbiased"])
def test_a_block_is_a_rectangle_that_reaches_every_position(rows: int, columns: int, sampler: str) -> None:
    masking = BlockMasking(scale=(0.3, 0.3), sampler=sampler)  # type: ignore[arg-type]
    firsts, sizes = set(), set()
    for step in range(4):
        masks = sample_masks(masking, (rows, columns), torch.arange(4000), 0, step)
        assert masks.target.shape == (4000, rows, columns) and torch.equal(masks.context, ~masks.target)
        for target in masks.target.unique(dim=0):
            at = target.nonzero()
            (top, left), (bottom, right) = at.amin(0).tolist(), at.amax(0).tolist()
            assert len(at) == (bottom - top + 1) * (right - left + 1)
            firsts.add((top, left))
            sizes.add((bottom - top + 1, right - left + 1))
    expected = {(s.height, s.width) for s in block_sizes((rows, columns), (0.3, 0.3), (0.75, 1.5), 5)}
    assert sizes <= expected
    edge = 0 if sampler == "faithful" else 1
    for side, line, reached in ((0, rows, {t for t, _ in firsts}), (1, columns, {le for _, le in firsts})):
        assert reached == set(range(max(line - size[side] + edge for size in sizes)))


@pytest.mark.parametrize("grid", [(10, 6), (5, 12)])
def test_drawn_multi_block_masks_have_the_exact_rates(grid: tuple[int, int]) -> None:
    masking = MultiBlockMasking(sampler="unbiased", min_keep=0, aspect=(1.0, 1.0), scale=(0.1, 0.1))
    (size,) = block_sizes(grid, (0.1, 0.1), (1.0, 1.0), 0)
    masks = sample_masks(masking, grid, torch.arange(20_000), 0, 0)
    expected = torch.tensor(target_rates(grid, size, 4, faithful=False))
    # One standard error is at most 0.0036.
    assert torch.allclose(masks.target.double().mean(0), expected.double(), atol=0.018)
    visible = float(masks.context.double().sum((1, 2)).mean())
    assert visible == pytest.approx(masking.mean_context(grid), abs=0.15)


@pytest.mark.parametrize(("rows", "columns"), [(10, 6), (32, 20), (1, 12)])
def test_random_masks_keep_their_number_of_cells_everywhere(rows: int, columns: int) -> None:
    masks = sample_masks(RandomMasking(ratio=0.6), (rows, columns), torch.arange(2000), 0, 0)
    kept = round(rows * columns * 0.4)
    assert (masks.context.flatten(1).sum(1) == kept).all()
    rates = masks.context.double().mean(0)
    assert rates.shape == (rows, columns) and float((rates - kept / (rows * columns)).abs().max()) < 0.06


def test_mixed_masks_choose_between_blocks_and_cells_by_batch() -> None:
    masking, kinds = MixedMasking(), []
    for step in range(200):
        masks = sample_masks(masking, (10, 6), torch.arange(8), 0, step)
        kinds.append(bool((masks.context.sum((1, 2)) == 24).all()))
        assert masks.context.flatten(1).sum(1).min() > masking.min_keep or kinds[-1]
    assert 0.15 < sum(kinds) / 200 < 0.35


def test_parts_of_a_batch_have_the_masks_of_the_whole() -> None:
    for masking in (MultiBlockMasking(), RandomMasking(), BlockMasking()):
        whole = sample_masks(masking, (10, 6), torch.arange(12), 1, 3)
        part = sample_masks(masking, (10, 6), torch.arange(4, 9), 1, 3)
        assert torch.equal(whole.context[4:9], part.context) and torch.equal(whole.target[4:9], part.target)


@pytest.mark.parametrize(("rows", "columns"), [(14, 9), (9, 20)])
@pytest.mark.parametrize("sampler", ["faithful", "unbiased"])
def test_ijepas_blocks_lie_in_the_grid_and_leave_the_context(rows: int, columns: int, sampler: str) -> None:
    masking = IJEPAMasking(min_keep=4, sampler=sampler)  # type: ignore[arg-type]
    for step in range(30):
        drawn = draw_context_blocks(masking, (rows, columns), torch.arange(8), 0, step)
        for sample in range(8):
            hidden, context = set(drawn.targets[sample].flatten().tolist()), drawn.context[sample].tolist()
            assert not hidden & set(context) and len(set(context)) == len(context) > 4
            assert set(context) <= set(range(rows * columns))
            for block in drawn.targets[sample]:
                r, c = block // columns, block % columns
                assert len(block) == int(r.max() - r.min() + 1) * int(c.max() - c.min() + 1)
                if sampler == "faithful":
                    assert r.max() < rows - 1 and c.max() < columns - 1


@pytest.mark.parametrize(
    ("masking", "grid", "message"),
    [
        (RandomMasking(ratio=0.95), (2, 3), "leaves 0 of 6 cells visible on the 2x3 grid"),
        (MultiBlockMasking(), (2, 6), "at most about 2 cells on the 2x6 grid"),
        (MultiBlockMasking(scale=(0.6, 0.6), min_keep=20), (10, 6), "of 60 cells as context on the 10x6 grid"),
        (IJEPAMasking(context_scale=(0.1, 0.1)), (14, 9), "on the 14x9 grid; use a larger context_scale"),
    ],
)
def test_grids_without_context_or_target_are_refused(masking: RandomMasking, grid: Extent, message: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=message):
        masking.check(grid)
