"""The synthetic set."""

from collections import Counter
from typing import Any

import pytest
import torch

from cnnjepa.data import open_data
from cnnjepa.data.synthetic import CLASS_NAMES, render
from cnnjepa.schemas import (
    SyntheticData,
)


@pytest.mark.parametrize("size", [16, 32, 64])
def test_synthetic_images_are_uint8_of_the_size_asked_for(size: int) -> None:
    images, labels = render("train", 20, size)
    assert images.shape == (20, 3, size, size) and images.dtype == torch.uint8
    assert labels.dtype == torch.int64 and labels.tolist() == [i % len(CLASS_NAMES) for i in range(20)]
    assert images.float().std(dim=(1, 2, 3)).min() > 1  # none is blank


def test_a_synthetic_image_does_not_depend_on_how_many_are_drawn() -> None:
    few, many = render("train", 5, 32)[0], render("train", 70, 32)[0]
    assert torch.equal(few, many[:5])
    assert torch.equal(many, render("train", 70, 32)[0])
    assert torch.unique(many.flatten(1), dim=0).shape[0] == 70


def test_splits_and_seeds_of_the_synthetic_set_share_no_image() -> None:
    drawn = torch.cat([render("train", 40, 32)[0], render("val", 40, 32)[0], render("train", 40, 32, seed=1)[0]])
    assert torch.unique(drawn.flatten(1), dim=0).shape[0] == 120


def test_the_synthetic_set_does_not_depend_on_threads() -> None:
    threads = torch.get_num_threads()
    try:
        drawn = []
        for count in (1, 2):
            torch.set_num_threads(count)
            drawn.append(render("val", 24, 32)[0])
        assert torch.equal(*drawn)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.medium
def test_synthetic_classes_are_balanced_and_named() -> None:
    classes = len(CLASS_NAMES)
    assert len(set(CLASS_NAMES)) == classes
    config = SyntheticData(train_images=4 * classes, val_images=2 * classes)
    data = open_data(config)
    assert data.resident and data.classes == classes and data.name == "synthetic-32"
    assert set(Counter(data.train.labels.tolist()).values()) == {4}
    assert set(Counter(data.val.labels.tolist()).values()) == {2}
    again = open_data(config)
    assert data.fingerprint == again.fingerprint
    assert data.fingerprint != open_data(config.model_copy(update={"drawing_seed": 1})).fingerprint


@pytest.mark.parametrize(
    "wrong", [("test", 1, 32, 0), ("train", -1, 32, 0), ("train", 1, 15, 0), ("train", 1, 257, 0), ("train", 1, 32, -1)]
)
def test_rendering_refuses_what_it_cannot_draw(wrong: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"choose|must be"):
        render(*wrong)
