"""Training batches depend on nothing but the seed and the step."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from image_sets import CPU, batches, config_of, noise, order_of, refused, stacked
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as transforms

from cnnjepa.data import open_data
from cnnjepa.data.batches import Normalizer, Order, training_batches
from cnnjepa.data.crops import draw_crops
from cnnjepa.schemas import (
    AugmentationConfig,
    SyntheticData,
)


@settings(deadline=None)
@given(
    images=st.integers(2, 60),
    batch=st.integers(1, 8),
    world=st.integers(1, 4),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_the_order_shows_every_image_at_most_once_an_epoch_and_drops_the_partial_batch(
    images: int, batch: int, world: int, seed: int, data: st.DataObject
) -> None:
    if images < batch * world:
        return
    orders = [Order(images, batch, rank, world, seed) for rank in range(world)]
    steps = orders[0].steps_per_epoch
    assert steps == images // (batch * world)
    ranks = [list(order.walk(0, 2 * steps)) for order in orders]
    for epoch in (0, 1):
        seen = [int(i) for walk in ranks for e, index in walk if e == epoch for i in index]
        assert len(seen) == len(set(seen)) == steps * batch * world
        assert set(seen) <= set(range(images)) and images - len(seen) < batch * world
    whole = list(Order(images, batch * world, 0, 1, seed).walk(0, 2 * steps))
    for step, (epoch, index) in enumerate(whole):
        assert all(walk[step][0] == epoch for walk in ranks)
        assert torch.equal(torch.cat([walk[step][1] for walk in ranks]), index)
    assert torch.cat([order.batch_indices() for order in orders]).tolist() == list(range(batch * world))
    first = data.draw(st.integers(0, 2 * steps))
    resumed = list(orders[0].walk(first, 2 * steps))
    assert [e for e, _ in resumed] == [e for e, _ in ranks[0][first:]]
    assert all(torch.equal(one, other) for (_, one), (_, other) in zip(resumed, ranks[0][first:], strict=True))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    epochs = [
        torch.cat([index for _, index in Order(40, 8, 0, 1, seed).walk(first, first + 5)])
        for seed, first in ((0, 0), (0, 5), (1, 0))
    ]
    assert all(sorted(one.tolist()) == list(range(40)) for one in epochs)
    assert len({tuple(one.tolist()) for one in epochs}) == 3


def test_batches_do_not_depend_on_the_number_of_loader_processes(image_folder: Path) -> None:
    config = config_of(image_folder)
    data = open_data(config)
    none, one, two = (batches(data, config, order_of(data), 0, 7, workers) for workers in (0, 1, 2))
    assert none[0].pixels.dtype == torch.uint8 and none[0].pixels.shape == (4, 3, 32, 32)
    assert torch.equal(stacked(none), stacked(one))
    assert torch.equal(stacked(none), stacked(two))
    assert len({hashlib.sha256(b.pixels.numpy().tobytes()).digest() for b in none}) == 7


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_loaded_crops_are_torchvisions_resized_crop(image_folder: Path, interpolation: Any) -> None:
    """Bit for bit, whatever the layout in memory that is cropped."""
    config = config_of(image_folder, augmentation=AugmentationConfig(interpolation=interpolation))
    data = open_data(config)
    (batch,) = batches(data, config, order_of(data, batch_size=15), 0, 1)
    ((_, index),) = order_of(data, batch_size=15).walk(0, 1)
    images = [data.train.load(int(i)) for i in index]
    sides = (torch.tensor([image.shape[side] for image in images]) for side in (1, 2))
    crops = draw_crops(config.augmentation, index, *sides, seed=3, epoch=0)
    for place, image in enumerate(images):
        box = [int(side[place]) for side in crops[:4]]
        stock = transforms.resized_crop(image.contiguous(), *box, [32, 32], InterpolationMode(interpolation))
        stock = transforms.horizontal_flip(stock) if crops.flip[place] else stock
        assert torch.equal(batch.pixels[place], stock)
    assert batch.pixels.is_contiguous(memory_format=torch.channels_last)


def test_an_epochs_first_batches_are_made_before_the_last_one_ends(
    image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pool of loader processes serves the whole run and begins the next epoch ahead of time."""
    config = config_of(image_folder)
    data = open_data(config)
    order = order_of(data, batch_size=3)  # five steps per epoch
    asked: list[int] = []
    started: list[int] = []
    walk, pool = Order.walk, torch.utils.data.DataLoader.__iter__

    def watched_walk(self: Order, first: int, last: int) -> Any:
        for epoch, index in walk(self, first, last):
            asked.append(epoch)
            yield epoch, index

    def watched_pool(self: Any) -> Any:
        started.append(1)
        return pool(self)

    monkeypatch.setattr(Order, "walk", watched_walk)
    monkeypatch.setattr(torch.utils.data.DataLoader, "__iter__", watched_pool)
    for step, _ in enumerate(training_batches(data, config, order, 0, 15, 1, CPU)):
        ahead = min(step + 1 + 4, 15)  # prefetch_factor, one loader process
        assert len(asked) == ahead and asked[-1] == (ahead - 1) // 5
    assert len(started) == 1


@pytest.mark.parametrize("resident", ["never", "always"])
def test_batches_can_be_taken_up_at_any_step(square_folder: Path, resident: str) -> None:
    config = config_of(square_folder, resident=resident)
    data = open_data(config)
    whole = stacked(batches(data, config, order_of(data), 0, 7))
    for first in range(7):
        assert torch.equal(stacked(batches(data, config, order_of(data), first, 7)), whole[first:])
    if resident == "never":
        assert torch.equal(stacked(batches(data, config, order_of(data), 4, 7, workers=2)), whole[4:])


@pytest.mark.parametrize("resident", ["never", "always"])
def test_two_ranks_see_together_what_one_process_sees_with_the_double_batch(square_folder: Path, resident: str) -> None:
    config = config_of(square_folder, resident=resident)
    data = open_data(config)
    whole = stacked(batches(data, config, order_of(data, batch_size=6), 0, 4))
    ranks = [stacked(batches(data, config, order_of(data, 3, rank, 2), 0, 4)) for rank in (0, 1)]
    together = torch.cat(ranks, 1)
    if resident == "never":
        assert torch.equal(together, whole)
    else:  # float32 matrix products may round differently in a batch of another size
        assert (together - whole).abs().max().item() < 1e-3


@pytest.mark.parametrize(("interpolation", "allowed"), [("bilinear", 1.01), ("bicubic", 1.15)])
def test_resident_and_loaded_images_see_the_same_crops(square_folder: Path, interpolation: str, allowed: float) -> None:
    """uint8 resampling rounds after each axis: half a grey level, times the sum of the second axis' absolute
    weights (1; bicubic at most 1.25), and half a level at the end, and a little for its 16-bit weights. (Where
    bicubic overshoots 0 or 255 it also cuts between the axes: up to 30 levels at black-and-white edges, of which
    these smooth pictures have none.)"""
    augmentation = AugmentationConfig(interpolation=interpolation)
    configs = [config_of(square_folder, resident=how, augmentation=augmentation) for how in ("never", "always")]
    sets = [open_data(config) for config in configs]
    assert [data.resident for data in sets] == [False, True]
    assert sets[0].fingerprint == sets[1].fingerprint
    loaded, resident = (
        stacked(batches(data, config, order_of(data), 0, 6)) for data, config in zip(sets, configs, strict=True)
    )
    assert resident.dtype == torch.float32
    assert (loaded.float() - resident).abs().max().item() < allowed


def test_auto_keeps_small_sets_of_one_size_and_no_others(image_folder: Path, square_folder: Path) -> None:
    assert open_data(config_of(square_folder, resident="auto")).resident
    assert not open_data(config_of(image_folder, resident="auto")).resident
    assert not open_data(config_of(square_folder, resident="auto", resident_limit_gib=1e-6)).resident
    message = refused(config_of(image_folder, resident="always"))
    assert "data.resident=always needs images of one size" in message and "resident=auto or never" in message


def test_normalising_subtracts_the_mean_and_divides_by_the_deviation() -> None:
    config = SyntheticData(image_size=16, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    pixels = noise(2, 16, 16)
    normalize = Normalizer(config, CPU)
    stock = v2.functional.normalize(pixels.double() / 255, [0.1, 0.2, 0.3], [0.5, 0.6, 0.7])
    ours = normalize(pixels)
    assert (ours - stock).abs().max().item() < 1e-6
    assert ours.dtype == torch.float32 and ours.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(normalize.undo(ours), pixels)
