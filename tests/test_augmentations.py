"""Augmentations: random erasing and the recipe's, for resident and loaded images, and in hashes."""

import sys
from pathlib import Path

import pytest
import torch
from image_sets import config_of
from recipes import shown
from runs import small_config
from torch import Tensor

from cnnjepa.data import open_data
from cnnjepa.data.augmentation import Augmentation, Augmenter, ImageDraws
from cnnjepa.data.augmentation_check import check_augmentation
from cnnjepa.data.batches import Order, training_batches
from cnnjepa.data.erasing import RandomErasing
from cnnjepa.schemas import AugmentationConfig, ConfigError, View, load_config, pretrain_hash
from cnnjepa.schemas.augmentation import AugmentationSection, RandomErasingConfig
from cnnjepa.schemas.views import PLAIN
from cnnjepa.training.pretrain import pretrain

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _search_path_of_this_test_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Naming a class adds the working directory to the path."""
    monkeypatch.setattr(sys, "path", [*sys.path])


def draws(count: int, seed: int = 0, epoch: int = 0, view: int = 0) -> ImageDraws:
    return ImageDraws(torch.arange(count), seed, epoch, view, CPU)


def test_erased_rectangles_have_the_share_aspect_and_value_that_are_set() -> None:
    config = RandomErasingConfig(erase_probability=0.5, erase_area=(0.1, 0.2), erase_aspect=(0.5, 2), erase_fill=0.25)
    erased = RandomErasing(config).apply(torch.ones(2000, 3, 40, 40), draws(2000)) != 1
    assert torch.equal(erased[:, 0], erased[:, 2])
    boxes = [one[0].nonzero() for one in erased if one.any()]
    assert len(boxes) / 2000 == pytest.approx(0.5, abs=0.03)
    sides = torch.stack([box.max(0).values - box.min(0).values + 1 for box in boxes])
    assert sides.prod(1).tolist() == [len(box) for box in boxes]  # whole rectangles
    area, aspect = sides.prod(1) / 1600, sides[:, 0] / sides[:, 1]
    assert 0.09 < area.min() < 0.11 and 0.19 < area.max() < 0.21 and area.mean() == pytest.approx(0.15, abs=0.005)
    assert 0.45 < aspect.min() < 0.55 and 1.8 < aspect.max() < 2.2
    corners = torch.stack([box.min(0).values for box in boxes])
    assert corners.min() == 0 and torch.stack([box.max(0).values for box in boxes]).max() == 39
    filled = RandomErasing(config).apply(torch.ones(50, 3, 8, 8), draws(50))
    assert set(filled.unique().tolist()) == {0.25, 1.0}


def test_draws_are_of_each_image_epoch_view_and_purpose() -> None:
    whole = draws(6).uniforms("noise", 4)
    some = ImageDraws(torch.tensor([4, 1]), 0, 0, 0, CPU)
    assert torch.equal(some.uniforms("noise", 4), whole[[4, 1]])
    others = [draws(6, seed=1), draws(6, epoch=1), draws(6, view=1)]
    assert all(not torch.equal(other.uniforms("noise", 4), whole) for other in others)
    assert not torch.equal(draws(6).uniforms("tilt", 4), whole)

    def noisy(image: Tensor) -> Tensor:
        return image + torch.rand(image.shape)

    before = torch.random.get_rng_state()
    one_by_one = draws(6).one_by_one(torch.zeros(6, 3, 2, 2), noisy)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(some.one_by_one(torch.zeros(2, 3, 2, 2), noisy), one_by_one[[4, 1]])
    assert one_by_one.flatten(1).unique(dim=0).shape[0] == 6


@pytest.mark.processes
def test_resident_and_loaded_images_are_augmented_alike(square_folder: Path) -> None:
    """Erased pixels are the same ones; others differ by the rounding of the crop alone."""
    erase = RandomErasingConfig(erase_probability=1, erase_fill=1, crop_scale=(1, 1), crop_ratio=(1, 1))
    batches = []
    for resident, workers in (("always", 0), ("never", 0), ("never", 2)):
        config = config_of(square_folder, resident=resident, augmentation=erase)
        data = open_data(config)
        order = Order(data.train.labels.numel(), 4, 0, 1, seed=3)
        (batch,) = training_batches(data, config, order, 1, 2, workers, CPU)
        batches.append(batch.pixels.float())
    assert torch.equal(batches[1], batches[2])
    assert (batches[0] - batches[1]).abs().max() < 1.05
    plain = config_of(
        square_folder, resident="never", augmentation=AugmentationConfig(crop_scale=(1, 1), crop_ratio=(1, 1))
    )
    (batch,) = training_batches(open_data(plain), plain, order, 1, 2, 0, CPU)
    changed = (batch.pixels != batches[1]).any(1)
    assert all(0.02 <= share <= 0.42 for share in changed.float().mean((1, 2)).tolist())
    assert set(batches[1].movedim(1, -1)[changed].unique().tolist()) == {255}


def test_integer_pixels_are_rounded_and_clamped() -> None:
    class Brighter(Augmentation):
        def apply(self, pixels: Tensor, draws: ImageDraws) -> Tensor:
            return pixels * 1.5

    augment = Augmenter((View(PLAIN, 2, AugmentationConfig()),), (0, 255), 0)
    pixels = torch.tensor([0, 3, 100, 200], dtype=torch.uint8).view(1, 1, 2, 2)
    assert augment(pixels, 0, torch.arange(1), 0) is pixels  # crop and flip are all
    augment._made = [Brighter(AugmentationConfig())]
    assert augment(pixels, 0, torch.arange(1), 0).flatten().tolist() == [0, 4, 150, 255]
    assert augment(pixels.float(), 0, torch.arange(1), 0).flatten().tolist() == pytest.approx([0, 4.5, 150, 255])


def test_only_other_augmentations_than_crop_and_flip_are_named_in_the_hash(own: str, tmp_path: Path) -> None:
    fixed = ("device=cpu", "resident=always")
    configs = [load_config("smoke", overrides=[*fixed, *more]) for more in ([], ["augmentation.name=crop"])]
    configs += [load_config("smoke", overrides=[*fixed, "augmentation.name=erase", f"erase_fill={x}"]) for x in (0, 1)]
    for edit in ("", "# edited\n"):
        module = f"{own}_{len(configs)}"
        (tmp_path / f"{module}.py").write_text(shown("extend_augmentation.md") + edit, encoding="utf-8")
        configs.append(load_config("smoke", overrides=[*fixed, f"augmentation.name={module}:Noise", "noise=0.3"]))
    assert configs[-1].data.augmentation.noise == 0.3 and configs[-1].data.augmentation.flip == 0.5
    hashes = [pretrain_hash(config, "images", 1) for config in configs]
    assert hashes[0] == hashes[1] and len(set(hashes)) == 5


class Changes(Augmentation):
    """Gives what the test sets."""

    calls = 0
    how = "batch"

    def apply(self, pixels: Tensor, draws: ImageDraws) -> Tensor:
        type(self).calls += 1
        return {
            "batch": lambda: pixels - pixels.mean((0, 2, 3), keepdim=True),
            "generator": lambda: pixels + torch.rand(pixels.shape),
            "state": lambda: pixels * self.calls,
            "shape": lambda: pixels[:, :1],
            "type": lambda: pixels.double(),
            "nan": lambda: pixels / 0 - pixels / 0,
            "raises": lambda: pixels + torch.ones(7),
        }[self.how]()


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("batch", "each image by itself: image 0 alone differs by"),
        ("generator", "deterministic: .* of the pixels differ between two calls; draw from the given draws"),
        ("state", "deterministic: .* differ between two calls"),
        ("shape", r"apply must give torch.float32 \[4, 3, 32, 32\]; it gives torch.float32 \[4, 1, 32, 32\]"),
        ("type", "it gives torch.float64"),
        ("nan", "some values are not finite"),
        ("raises", "apply fails: RuntimeError"),
    ],
)
def test_an_augmentation_that_breaks_its_contract_is_refused_before_training(
    how: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Changes, "how", how)
    config = small_config(f"augmentation.name={Changes.__module__}:Changes")
    with pytest.raises(ConfigError, match=f"augmentation {Changes.__module__}:Changes: .*{reason}"):
        pretrain(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_class_that_is_no_augmentation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must derive from cnnjepa"):
        pretrain(small_config("augmentation.name=fractions:Fraction"), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"augmentation\.name: 'erasing' .*crop, erase, module:Class of your own"):
        small_config("augmentation.name=erasing")


def test_checks_of_the_built_in_augmentations_find_nothing() -> None:
    for section, ends in ((RandomErasingConfig(), "differently in each epoch"), (AugmentationConfig(), "flip only")):
        found = list(check_augmentation(View(PLAIN, 16, section)))
        assert [checked.ok for checked in found if checked.ok is False] == [] and found[-1].value.endswith(ends)
    assert isinstance(section, AugmentationSection)
