"""Evaluation batches: resize, centre crop, order."""

from pathlib import Path

import pytest
import torch
from image_sets import config_of
from torchvision.transforms import v2

from cnnjepa.data import open_data
from cnnjepa.data.evaluation import evaluation_batches
from cnnjepa.data.open import open_sources
from cnnjepa.data.source import Subset


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("resize", [None, 40])
def test_evaluation_resizes_crops_the_centre_and_keeps_the_order(
    image_folder: Path, resize: int | None, workers: int
) -> None:
    config = config_of(image_folder)
    source = open_sources(config)["train"]
    found = list(evaluation_batches(source, config, resize, 4, workers))
    assert [batch.pixels.shape[0] for batch in found] == [4, 4, 4, 3]
    assert torch.cat([batch.places for batch in found]).tolist() == list(range(15))
    pixels = torch.cat([batch.pixels for batch in found])
    stock = v2.Compose([v2.Resize(resize or 32, antialias=True), v2.CenterCrop(32)])
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels, torch.stack([stock(source.load(i)) for i in range(15)]))


def test_evaluation_of_resident_images_is_the_same(square_folder: Path) -> None:
    for size, resize in ((40, None), (32, 40), (32, None)):
        pixels = []
        for resident in ("always", "never"):
            config = config_of(square_folder, resident=resident, image_size=size)
            found = list(evaluation_batches(open_data(config).val, config, resize, 4))
            assert torch.cat([batch.places for batch in found]).tolist() == list(range(6))
            pixels.append(torch.cat([batch.pixels for batch in found]))
        assert torch.equal(*pixels)


def test_a_subset_is_evaluated_in_its_own_places(image_folder: Path) -> None:
    config = config_of(image_folder)
    source = open_sources(config)["train"]
    subset = Subset(source, torch.tensor([2, 7, 11]))
    (batch,) = evaluation_batches(subset, config, None, 8)
    (whole,) = evaluation_batches(source, config, None, 16)
    assert batch.places.tolist() == [0, 1, 2]
    assert torch.equal(batch.pixels, whole.pixels[[2, 7, 11]])
