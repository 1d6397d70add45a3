"""I-JEPA's masks: one context block and several target blocks."""

import pytest
import torch
from masked_method_configs import IJEPA_SMALL

from cnnjepa.masks.context_blocks import draw_context_blocks
from cnnjepa.schemas import ConfigError, IJEPAMasking, load_config


@pytest.mark.parametrize(("grid", "min_keep"), [(14, 10), (16, 10), (8, 4)])
@pytest.mark.parametrize("sampler", ["faithful", "unbiased"])
def test_context_and_targets_are_blocks_that_do_not_overlap(grid: int, min_keep: int, sampler: str) -> None:
    masking = IJEPAMasking(min_keep=min_keep, sampler=sampler)  # type: ignore[arg-type]
    visible = []
    for step in range(60):
        drawn = draw_context_blocks(masking, grid, torch.arange(8), 0, step)
        assert drawn.targets.shape[1] == 4
        for sample in range(8):
            hidden = set(drawn.targets[sample].flatten().tolist())
            context = drawn.context[sample].tolist()
            assert not hidden & set(context) and len(set(context)) == len(context) > min_keep
            for block in drawn.targets[sample]:
                rows, columns = block // grid, block % grid
                assert len(block) == (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1) > min_keep
                assert 0.1 <= len(block) / grid**2 <= 0.22  # sides are rounded
                if sampler == "faithful":
                    assert rows.max() < grid - 1 and columns.max() < grid - 1
        visible.append(drawn.context.shape[1])
    assert 0 < sum(visible) / len(visible) / grid**2 < masking.mean_context(grid) / grid**2 + 0.02  # cut to the least


def test_masks_are_a_function_of_seed_step_and_place() -> None:
    masking = IJEPAMasking()
    whole = draw_context_blocks(masking, 14, torch.arange(16), 1, 5)
    part = draw_context_blocks(masking, 14, torch.arange(8, 16), 1, 5)
    assert torch.equal(whole.targets[8:], part.targets)
    least = min(whole.context.shape[1], part.context.shape[1])
    assert torch.equal(whole.context[8:, :least], part.context[:, :least])
    assert not torch.equal(whole.targets, draw_context_blocks(masking, 14, torch.arange(16), 2, 5).targets)


def test_grids_too_small_for_the_blocks_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"never more than masking\.min_keep 10"):
        load_config("smoke", overrides=["method.name=ijepa", "arch=vit_tiny", "patch_size=8"])
    with pytest.raises(ConfigError, match=r"context_scale \[0.05, 0.05\] gives no context block"):
        load_config("smoke", overrides=[*IJEPA_SMALL, "context_scale=[0.05,0.05]"])
