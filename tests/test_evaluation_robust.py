"""Task `robust`: corruptions against torchvision and their definitions, and figures of constructed classifiers."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from evaluated import CPU
from torchvision.io import decode_jpeg, encode_jpeg
from torchvision.transforms.v2 import functional as transforms

from cnnjepa.data import DataSet
from cnnjepa.evaluation.corruptions import Corruptions, strengths
from cnnjepa.evaluation.subject import Subject
from cnnjepa.evaluation.task import task_of
from cnnjepa.evaluation.tasks.robust import robust_outcome
from cnnjepa.probes.features import Features
from cnnjepa.randomness import generator
from cnnjepa.schemas import PretrainConfig, load_config, with_sections
from cnnjepa.schemas.evaluation import RobustTask

Found = dict[tuple[str, int], torch.Tensor]


def section_of(**fields: Any) -> Any:
    config: PretrainConfig = load_config("smoke")
    return with_sections(config, {"data": {"source": "synthetic", **fields}}, []).data


def pixels_of(count: int, channels: int = 3, side: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (count, channels, side, side), generator=torch.Generator().manual_seed(5)).byte()


def variants(corruptions: Corruptions, pixels: torch.Tensor, places: list[int]) -> Found:
    return {(name, level): made for name, level, made in corruptions.variants(pixels, torch.tensor(places))}


def test_strengths_are_the_published_ones_at_32_and_224_pixels_and_lie_between_them_otherwise() -> None:
    assert strengths("noise", 32) == pytest.approx((0.04, 0.06, 0.08, 0.09, 0.10))
    assert strengths("noise", 224) == pytest.approx((0.08, 0.12, 0.18, 0.26, 0.38))
    assert strengths("blur", 32) == pytest.approx((0.4, 0.6, 0.7, 0.8, 1.0))
    assert strengths("blur", 224) == pytest.approx((1, 2, 3, 4, 6))
    assert strengths("blur", 448) == pytest.approx((2, 4, 6, 8, 12))
    assert strengths("jpeg", 224) == (25, 18, 15, 10, 7)
    between = round((32 * 224) ** 0.5)
    assert strengths("contrast", between) == pytest.approx(
        [(a * b) ** 0.5 for a, b in ((0.75, 0.4), (0.5, 0.3), (0.4, 0.2), (0.3, 0.1), (0.15, 0.05))], rel=1e-2
    )
    assert strengths("pixelate", 512) == pytest.approx((0.6, 0.5, 0.4, 0.3, 0.25))


def test_corruptions_are_torchvisions() -> None:
    pixels = pixels_of(2)
    found = variants(Corruptions(section_of(), 3), pixels, [7, 9])
    assert len(found) == 30 and all(made.dtype == torch.uint8 and made.shape == pixels.shape for made in found.values())
    values = pixels.float() / 255

    def stored(made: torch.Tensor) -> torch.Tensor:
        return (made * 255).round().byte()

    assert torch.equal(found["blur", 5], stored(transforms.gaussian_blur(values, [7, 7], [1.0, 1.0])))
    channels = transforms.adjust_contrast(values.flatten(0, 1)[:, None], 0.4).view_as(values)
    assert (found["contrast", 3].int() - stored(channels).int()).abs().max() <= 1  # rounding
    for row, place in enumerate((7, 9)):
        assert torch.equal(found["jpeg", 4][row], decode_jpeg(encode_jpeg(pixels[row], 50)))
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(generator(3, "noise", place).get_state())
            noisy = stored(transforms.gaussian_noise(values[row], sigma=0.08))
        assert torch.equal(found["noise", 3][row], noisy)
    small = transforms.resize(values, [24, 24], antialias=True)
    assert torch.equal(
        found["pixelate", 4], stored(transforms.resize(small, [32, 32], transforms.InterpolationMode.NEAREST_EXACT))
    )


def test_an_occlusion_covers_its_share_of_the_image_with_the_mean_colour() -> None:
    pixels = torch.full((20, 3, 32, 32), 255, dtype=torch.uint8)
    found = variants(Corruptions(section_of(mean=[0.2, 0.4, 0.6]), 0), pixels, list(range(20)))
    corners = set()
    for severity, side in ((1, 10), (2, 14), (5, 23)):
        covered = found["occlusion", severity][:, 0] != 255
        assert covered.sum((1, 2)).tolist() == [side * side] * 20
        assert found["occlusion", severity][0, :, covered[0]].unique(dim=1)[:, 0].tolist() == [51, 102, 153]
        corners |= {tuple(one.nonzero()[0].tolist()) for one in covered}
    assert len(corners) > 20


def test_a_corrupted_image_does_not_depend_on_its_batch() -> None:
    corruptions, pixels = Corruptions(section_of(), 0), pixels_of(4)
    together = variants(corruptions, pixels, [3, 10, 11, 40])
    alone = variants(corruptions, pixels[2:3], [11])
    assert all(torch.equal(together[one][2:3], alone[one]) for one in together)
    other = variants(Corruptions(section_of(), 1), pixels[2:3], [11])
    assert not torch.equal(alone["noise", 1], other["noise", 1])
    assert not torch.equal(alone["occlusion", 1], variants(corruptions, pixels[2:3], [12])["occlusion", 1])


@pytest.mark.parametrize("kind", ["uint16", "float32"])
def test_deeper_pixels_get_the_same_corruptions_without_jpeg(kind: str) -> None:
    pixels = pixels_of(2)
    plain = variants(Corruptions(section_of(), 0), pixels, [0, 1])
    deep = (pixels.int() * 257).to(torch.uint16) if kind == "uint16" else pixels.float() / 255
    corruptions = Corruptions(section_of().model_copy(update={"dtype": kind}), 0)
    assert corruptions.notes == [f"left out: jpeg, which cannot store {kind} images with 3 channels"]
    found = variants(corruptions, deep, [0, 1])
    assert len(found) == 25
    for one, made in found.items():
        assert made.dtype == deep.dtype
        as_bytes = made.float() / 257 if kind == "uint16" else made * 255
        assert (as_bytes - plain[one].float()).abs().max() <= 0.51


def test_figures_are_means_over_severities_and_the_retained_share_is_their_ratio() -> None:
    clean = torch.tensor([True, True, True, False])
    hits = {
        "noise": torch.tensor([[True, True, False, False], [True, False, False, False]]),
        "blur": torch.tensor([[True, True, True, True], [False, False, False, True]]),
    }
    found = robust_outcome(clean, hits)
    assert {name: figure.value for name, figure in found.figures.items()} == pytest.approx(
        {"corrupted": 50.0, "clean": 75.0, "retained": 200 / 3, "noise": 37.5, "blur": 62.5}
    )
    assert next(iter(found.figures)) == "corrupted"
    assert found.details["accuracies"] == {"noise": [50.0, 25.0], "blur": [100.0, 25.0]}
    for name, values in found.per_image.items():
        assert values.mean() == pytest.approx(found.figures[name].value, abs=1e-4)
    none = robust_outcome(torch.zeros(4, dtype=torch.bool), hits)
    assert "retained" not in none.figures and none.notes[0].startswith("left out: retained")


class _Pictures:
    """Dark images of class 0 and bright ones of class 1."""

    class_names = ("dark", "bright")

    def __init__(self, count: int) -> None:
        self.labels = torch.arange(count) % 2
        self.loads = 0

    def load(self, index: int) -> torch.Tensor:
        self.loads += 1
        return torch.full((3, 32, 32), 100 + 50 * (index % 2), dtype=torch.uint8)

    def name(self, index: int) -> str:
        return f"{index}.png"

    def fingerprint(self) -> str:
        return "pictures"


@pytest.mark.parametrize("batch_size", [4, 64])
def test_brightness_survives_everything_but_occlusion_and_every_image_is_read_once(
    tmp_path: Path, batch_size: int
) -> None:
    """The mean of a flat image changes only where it is covered; the fill is far brighter than both classes."""
    train, val = _Pictures(80), _Pictures(12)
    section = section_of(mean=[0.99] * 3, std=[1.0] * 3)
    encoder: Any = SimpleNamespace(label="brightness", preprocessing=SimpleNamespace(resize=None))
    subject = Subject(
        encoder, DataSet(train, val, "pictures", "pictures"), section, CPU, tmp_path, batch_size=batch_size
    )
    subject.embed = lambda pixels: pixels.float().mean((1, 2, 3))[:, None] / 25 - 5  # type: ignore[method-assign]
    subject._pooled = {
        split: Features(
            subject.embed(torch.stack([source.load(i) for i in range(source.labels.numel())])), source.labels
        )
        for split, source in (("train", train), ("val", val))
    }
    val.loads = 0
    found = task_of(RobustTask(epochs=30, batch_size=16, lrs=(0.1,), most_images=10)).evaluate(subject, lambda: None)
    assert val.loads == 10
    assert found.notes == ["10 of 12 validation images, spread evenly over classes"]
    assert found.figures["clean"].value == 100
    accuracies = found.details["accuracies"]
    assert all(accuracies[name] == [100] * 5 for name in ("noise", "blur", "jpeg", "contrast", "pixelate"))
    assert accuracies["occlusion"][-1] == 50  # dark images become bright
    assert accuracies["occlusion"] == sorted(accuracies["occlusion"], reverse=True)
    assert found.figures["corrupted"].value == pytest.approx(np.mean(list(accuracies.values())))
    assert len(found.per_image["noise"]) == 10
