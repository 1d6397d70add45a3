"""`probe RUN --data`: what other images inherit from the run, and what may be set for them."""

import shutil
from pathlib import Path

import pytest
import torch
from torchvision.io import write_png
from typer.testing import CliRunner

from cnnjepa.cli.app import app
from cnnjepa.data import open_data
from cnnjepa.schemas import ConfigError, PretrainConfig, load_config, read_config
from cnnjepa.training.pretrain import pretrain
from cnnjepa.training.probed_images import probe_config
from cnnjepa.training.reprobe import reprobe

FEW = ("linear_epochs=2", "floors=false", "encoder.width=0.0625", "device=cpu", "epochs=1", "warmup_epochs=0",
       "every_epochs=0", "batch_size=16", "workers=0")  # fmt: skip


def images(folder: Path, train: int, val: int, sides: tuple[int, ...] = (32,), val_name: str = "val") -> Path:
    """PNGs of two classes, their sides taken in turn."""
    torch.manual_seed(train)
    for split, count in (("train", train), (val_name, val)):
        for number in range(count):
            path = folder / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            side = sides[number % len(sides)]
            write_png((torch.rand(3, side, side) * 100 + 100 * (number % 2)).to(torch.uint8), str(path))
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`own`: a run on 40 + 20 of the images in `images`, resident; `drawn`: one on synthetic images."""
    root = tmp_path_factory.mktemp("probed")
    images(root / "images", 48, 24)
    limits = ("train_images=40", "val_images=20", "image_size=32", "mean=[0.4, 0.5, 0.6]", "on_error=skip")
    pretrain(load_config("smoke", data=root / "images", overrides=[*FEW, *limits]), root / "own")
    pretrain(load_config("smoke", overrides=[*FEW, "train_images=64", "val_images=32"]), root / "drawn")
    assert read_config(root / "own" / "config.yaml").data.resident == "always"  # decided from auto
    return root


def asked(run: Path, data: Path | None, *overrides: str) -> tuple[PretrainConfig, bool]:
    state = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    return probe_config(read_config(run / "config.yaml"), state["settings"], list(overrides), data)


@pytest.mark.medium
@pytest.mark.parametrize("run", ["own", "drawn"])
def test_other_images_inherit_what_the_encoder_needs_and_nothing_else(run: str, runs: Path, tmp_path: Path) -> None:
    other = images(tmp_path / "other", 30, 12, (48, 40))
    config, own = asked(runs / run, other)
    mean = (0.4, 0.5, 0.6) if run == "own" else (0.485, 0.456, 0.406)
    assert not own and (config.data.source, config.data.image_size, config.data.mean) == ("folder", 32, mean)
    assert (config.data.resident, config.data.on_error) == ("auto", "raise")
    assert (config.data.train_images, config.data.val_images) == (None, None)
    assert config.encoder == read_config(runs / run / "config.yaml").encoder
    before = (runs / run / "result.json").read_bytes()
    result = reprobe(runs / run, overrides=["linear_epochs=3"], data_path=other)[0]  # images of two sizes: not resident
    assert (result.train_images, result.val_images) == (30, 12) and result.dataset == "folder-other"
    assert (runs / run / "result.json").read_bytes() == before


def test_how_other_images_are_read_may_be_set(runs: Path, tmp_path: Path) -> None:
    other = images(tmp_path / "other", 30, 12, (48, 40), val_name="test")
    config, _ = asked(runs / "own", other, "val_split=test", "train_images=20", "resident=never", "on_error=skip")
    data = open_data(config.data)
    assert (data.train.labels.numel(), data.val.labels.numel(), data.resident) == (20, 12, False)
    # What the message advises is possible.
    with pytest.raises(ConfigError, match=r"use data\.resident=auto or never"):
        open_data(asked(runs / "own", other, "val_split=test", "resident=always")[0].data)
    assert not open_data(asked(runs / "own", other, "val_split=test", "resident=auto")[0].data).resident


def test_the_run_s_own_images_at_another_place_keep_its_limits(runs: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(runs / "images", moved)
    for config, own in (asked(runs / "own", moved), asked(runs / "own", None, f"data.path={moved}")):
        assert own and str(config.data.path) == str(moved)  # type: ignore[union-attr]
        assert (config.data.train_images, config.data.val_images, config.data.on_error) == (40, 20, "skip")
    other, own = asked(runs / "own", None, f"data.path={images(tmp_path / 'other', 30, 12)}")
    assert not own and other.data.train_images is None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train_images=10", "with --data PATH to other images also data.source"),
        ("image_size=64", "a trained run cannot change it; it must be one of probe.,"),
        ("optimizer.lr=1", "a trained run cannot change it"),
        ("runtime.seed=1", "a trained run cannot change it"),
    ],
)
def test_what_a_trained_run_cannot_change_is_refused(setting: str, message: str, runs: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        asked(runs / "own", None, setting)


@pytest.mark.parametrize(
    "words",
    [
        ["probe", "RUN"], ["train", "--preset", "smoke"], ["masks", "--out", "m.png", "--preset", "smoke"],
        ["doctor"], ["config", "show", "--preset", "smoke"], ["ablate", "predictor", "--plan"],
        ["ablate", "masking", "--plan"], ["ablate", "predictor_depth", "--plan"], ["benchmark", "--plan"],
        ["search", "--space", "predictor.depth=choice(1,2)"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_second_data_is_refused_and_never_dropped(words: list[str]) -> None:
    done = CliRunner().invoke(app, [*words, "--data", "here", "--data", "there"])
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception) == "--data is given 2 times; give it once"
