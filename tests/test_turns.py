"""Vertical flips and quarter turns: off by default, and then no run changes its name."""

import numpy as np
import pytest
import torch
from configs import resolved

from cnnjepa.data.batches import _crop
from cnnjepa.data.crops import draw_crops
from cnnjepa.data.resample import crop_and_resize
from cnnjepa.schemas import AugmentationConfig, pretrain_hash
from cnnjepa.schemas.views import PLAIN, View

COUNT, SIDE = 400, 8
WHOLE = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0)}


def test_both_paths_flip_and_turn_like_numpy() -> None:
    augmentation = AugmentationConfig(**WHOLE, flip=0.5, vertical_flip=0.5, quarter_turns=0.5)
    images = torch.randint(0, 256, (COUNT, 5, SIDE, SIDE), dtype=torch.uint8)
    sides = torch.full((COUNT,), SIDE)
    crops = draw_crops(augmentation, torch.arange(COUNT), sides, sides, seed=3, epoch=1)
    batch = crop_and_resize(images, crops, SIDE, "bicubic")
    assert crops.upside_down is not None and crops.turns is not None
    for place in range(COUNT):
        expected = images[place].numpy()
        expected = expected[:, :, ::-1] if crops.flip[place] else expected
        expected = expected[:, ::-1] if crops.upside_down[place] else expected
        expected = np.rot90(expected, int(crops.turns[place]), (1, 2))
        assert (_crop(images[place], View(PLAIN, SIDE, augmentation), crops, place).numpy() == expected).all()
        assert np.allclose(batch[place].numpy(), expected, atol=1e-3)
    assert 0.4 < float(crops.upside_down.float().mean()) < 0.6
    shares = torch.bincount(crops.turns, minlength=4) / COUNT
    assert shares.tolist() == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6], abs=0.08)


def test_the_draws_of_a_turn_change_neither_crop_nor_flip() -> None:
    sides = torch.full((50,), 40)
    plain, turned = (
        draw_crops(AugmentationConfig(quarter_turns=rate), torch.arange(50), sides, sides, seed=1, epoch=2)
        for rate in (0.0, 1.0)
    )
    assert all(torch.equal(a, b) for a, b in zip(plain[:5], turned[:5], strict=True))
    assert plain.turns is None and turned.turns is not None and int(turned.turns.min()) == 1


def test_off_they_leave_the_name_and_on_they_change_it() -> None:
    usual = pretrain_hash(resolved(), "images", 1)
    assert pretrain_hash(resolved("vertical_flip=0", "quarter_turns=0"), "images", 1) == usual
    names = {pretrain_hash(resolved(setting), "images", 1) for setting in ("vertical_flip=0.5", "quarter_turns=0.5")}
    assert len(names | {usual}) == 3
