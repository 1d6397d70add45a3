"""Random resized crops and resampling are torchvision's.

Shapes: B images, H x W pixels.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from image_sets import noise
from scipy import stats
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as transforms

from cnnjepa.data.crops import Crops, draw_crops
from cnnjepa.data.resample import crop_and_resize
from cnnjepa.schemas import (
    AugmentationConfig,
)


def drawn_crops(
    height: int, width: int, count: int, config: AugmentationConfig, seed: int = 0, epoch: int = 0
) -> Crops:
    ones = torch.ones(count, dtype=torch.int64)
    return draw_crops(config, torch.arange(count), ones * height, ones * width, seed, epoch)


@pytest.mark.medium
@pytest.mark.parametrize(("height", "width"), [(120, 80), (64, 64), (375, 500), (40, 300), (300, 40)])
def test_crops_are_distributed_as_torchvisions(height: int, width: int) -> None:
    """Area, aspect and place, by Kolmogorov-Smirnov and by quantiles. At 40 x 300 most draws do not fit, so that
    retries and the central fallback are in it too."""
    count = 4000
    config = AugmentationConfig()
    ours = drawn_crops(height, width, count, config)
    torch.manual_seed(1)
    stock = v2.RandomResizedCrop(8, scale=config.crop_scale, ratio=config.crop_ratio)
    image = torch.empty(3, height, width, dtype=torch.uint8)
    theirs = [stock.make_params([image]) for _ in range(count)]

    def figures(top: np.ndarray, left: np.ndarray, h: np.ndarray, w: np.ndarray) -> dict[str, np.ndarray]:
        centre_y, centre_x = (top + h / 2) / height, (left + w / 2) / width
        return {"area": h * w / (height * width), "aspect": np.log(w / h), "y": centre_y, "x": centre_x}

    one = figures(*(side.double().numpy() for side in ours[:4]))
    two = figures(*(np.array([p[name] for p in theirs], dtype=float) for name in ("top", "left", "height", "width")))
    for name in one:
        assert stats.ks_2samp(one[name], two[name]).pvalue > 1e-3, name
        error = math.sqrt((one[name].var() + two[name].var()) / count)
        assert one[name].mean() == pytest.approx(two[name].mean(), abs=4.5 * error + 1e-12), name
        spread = max(two[name].std(), 1e-9)
        whole_pixels = 1 / min(height, width) if name in "xy" else 0.0
        for q in (0.05, 0.25, 0.5, 0.75, 0.95):  # a quantile's sampling error is up to 5 % of the spread here
            expected = pytest.approx(np.quantile(two[name], q), abs=0.15 * spread + whole_pixels)
            assert np.quantile(one[name], q) == expected, (name, q)


@settings(deadline=None)
@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    index=st.integers(0, 2**40),
    epoch=st.integers(0, 10**6),
    seed=st.integers(0, 2**40),
    least=st.floats(0.01, 1),
    most=st.floats(0.01, 1),
)
def test_crops_lie_inside_the_image(
    height: int, width: int, index: int, epoch: int, seed: int, least: float, most: float
) -> None:
    config = AugmentationConfig(crop_scale=(min(least, most), max(least, most)))
    crops = draw_crops(config, torch.tensor([index]), torch.tensor([height]), torch.tensor([width]), seed, epoch)
    top, left, h, w = (int(side) for side in crops[:4])
    assert 0 <= top < top + h <= height
    assert 0 <= left < left + w <= width


def test_every_place_of_a_crop_is_as_likely() -> None:
    """A quarter of 8 x 8 pixels, square, lies at one of 5 x 5 places."""
    crops = drawn_crops(8, 8, 5000, AugmentationConfig(crop_scale=(0.25, 0.25), crop_ratio=(1, 1)))
    assert (crops.height == 4).all() and (crops.width == 4).all()
    counts = torch.bincount(crops.top * 5 + crops.left, minlength=25)
    assert counts.numel() == 25
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_a_crop_depends_on_seed_epoch_and_image_alone() -> None:
    config = AugmentationConfig()
    whole = drawn_crops(60, 80, 64, config)
    one = draw_crops(config, torch.tensor([17]), torch.tensor([60]), torch.tensor([80]), 0, 0)
    assert [int(side[0]) for side in one[:5]] == [int(side[17]) for side in whole[:5]]
    for other in (drawn_crops(60, 80, 64, config, seed=1), drawn_crops(60, 80, 64, config, epoch=1)):
        assert not torch.equal(whole.top, other.top)


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5, 1.0])
def test_flips_have_their_rate_and_do_not_follow_the_crop(rate: float) -> None:
    count = 10_000
    crops = drawn_crops(60, 80, count, AugmentationConfig(flip=rate))
    assert crops.flip.double().mean().item() == pytest.approx(rate, abs=4.5 * math.sqrt(rate * (1 - rate) / count))
    if 0 < rate < 1:
        together = torch.stack([crops.flip.double(), crops.left.double()])
        assert abs(torch.corrcoef(together)[0, 1].item()) < 5 / math.sqrt(count)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    size=st.integers(1, 40),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
    data=st.data(),
)
def test_resampling_is_torchvisions_antialiased_resize(
    height: int, width: int, size: int, interpolation: Any, data: st.DataObject
) -> None:
    images = noise(3, height, width)
    boxes = []
    for _ in range(3):
        top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
        boxes.append((top, left, data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left))))
    flips = data.draw(st.lists(st.booleans(), min_size=3, max_size=3))
    crops = Crops(*torch.tensor(boxes).T, torch.tensor(flips))
    ours = crop_and_resize(images, crops, size, interpolation, torch.float64)
    for i, (box, flip) in enumerate(zip(boxes, flips, strict=True)):
        mode = InterpolationMode(interpolation)
        stock = transforms.resized_crop(images[i].double(), *box, [size, size], mode, antialias=True)
        stock = transforms.horizontal_flip(stock) if flip else stock
        assert (ours[i] - stock.clamp(0, 255)).abs().max().item() < 1e-9


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("height", "width", "size"), [(60, 90, 24), (20, 30, 48), (48, 48, 48), (90, 20, 32)])
def test_resampling_up_down_and_not_at_all(height: int, width: int, size: int, interpolation: Any) -> None:
    images = noise(2, height, width)
    crops = Crops(*torch.tensor([[0, 0, height, width], [3, 5, height - 4, width - 7]]).T, torch.tensor([False, True]))
    ours = crop_and_resize(images, crops, size, interpolation, torch.float64)
    mode = InterpolationMode(interpolation)
    whole = transforms.resize(images[0].double(), [size, size], mode, antialias=True).clamp(0, 255)
    part = transforms.resize(images[1, :, 3 : height - 1, 5 : width - 2].double(), [size, size], mode, antialias=True)
    assert (ours[0] - whole).abs().max().item() < 1e-9
    assert (ours[1] - part.clamp(0, 255).flip(-1)).abs().max().item() < 1e-9
    if height == width == size:
        assert torch.equal(ours[0], images[0].double())
    single = crop_and_resize(images, crops, size, interpolation)
    assert single.dtype == torch.float32
    assert (single - ours).abs().max().item() < 1e-3
