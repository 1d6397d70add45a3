"""Presets, the files that extend them, and the data of the command line."""

import json
from pathlib import Path

import pytest
from configs import refused, write

from cnnjepa.schemas import (
    ConfigError,
    RandomMasking,
    load_config,
    preset_names,
    read_config,
)
from cnnjepa.schemas.overrides import flat


def test_the_presets_are_those_promised() -> None:
    assert set(preset_names()) >= {"smoke", "demo", "ablation", "tiny64", "cifar", "in100", "in1k"}


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_loads_without_warnings_and_survives_a_round_trip(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    assert config.warnings() == []
    again = read_config(write(tmp_path, json.dumps(config.model_dump(mode="json"))))
    assert again == config


AUTHORS = {
    "method.name": "cnnjepa",
    "method.predictor.depth": 3,
    "method.predictor.kernel_size": 3,
    "method.predictor.conv": "separable",
    "method.predictor.projection_dim": None,
    "method.masking.strategy": "mixed",
    "method.masking.multi_block_probability": 0.75,
    "method.masking.num_blocks": 4,
    "method.masking.scale": (0.15, 0.2),
    "method.masking.aspect": (0.75, 1.5),
    "method.masking.min_keep": 5,
    "method.masking.ratio": 0.6,
    "method.masking.sampler": "faithful",
    "method.ema.start": 0.996,
    "method.ema.end": 1.0,
    "method.ema.update": "per_epoch",
    "method.loss.name": "smooth_l1",
    "method.loss.normalized": True,
    "encoder.arch": "resnet50",
    "encoder.stem": "imagenet",
    "encoder.stages": 4,
    "encoder.width": 1.0,
    "data.source": "folder",
    "data.image_size": 224,
    "data.augmentation.crop_scale": (0.2, 1.0),
    "data.augmentation.flip": 0.5,
    "data.augmentation.interpolation": "bicubic",
    "data.mean": (0.485, 0.456, 0.406),
    "data.std": (0.229, 0.224, 0.225),
    "optimizer.name": "adamw",
    "optimizer.lr": 0.01,
    "optimizer.weight_decay": 0.01,
    "optimizer.betas": (0.9, 0.999),
    "optimizer.clip_norm": None,
    "schedule.warmup_epochs": 10,
    "schedule.final_lr_factor": 0.001,
    "probe.encoder": "auto",
    "probe.linear_epochs": 90,
    "probe.linear_lr": 1e-3,
    "probe.linear_batch_size": 512,
    "probe.knn_k": 200,
    "probe.knn_temperature": 0.1,
    "probe.resize": 256,
    "runtime.precision": "bf16",
    "runtime.batch_size": 128,
}


@pytest.mark.parametrize(("name", "epochs"), [("in100", 201), ("in1k", 101)])
def test_the_imagenet_presets_are_the_authors_settings(name: str, epochs: int) -> None:
    asked = flat(load_config(name).model_dump())
    assert {path: asked[path] for path in AUTHORS} == AUTHORS
    assert asked["runtime.epochs"] == epochs
    assert load_config(name).probed_encoder == "target"
    assert load_config(name).grid == 7
    assert load_config(name).visible_share == pytest.approx(0.5226, abs=5e-5)  # docs/sources.md#mixed-masking


def test_an_unknown_preset_is_refused_with_the_nearest() -> None:
    message = refused(preset="in100k")
    assert f"must be one of {', '.join(preset_names())}" in message and "nearest is 'in100'" in message


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("true", True), ("false", False), ("[pixels]", ("pixels",)), ("[pixels, untrained]", True),
        ("[untrained, untrained]", ("untrained",)),
    ],
)  # fmt: skip
def test_floors_that_are_the_same_have_one_value(asked: str, found: object) -> None:
    assert load_config("smoke", overrides=[f"probe.floors={asked}"]).probe.floors == found


@pytest.mark.parametrize("wrong", ["[]", "random", "[random]", "1"])
def test_floors_that_do_not_exist_are_refused_with_the_legal_ones(wrong: str) -> None:
    with pytest.raises(ConfigError, match=r"probe\.floors: must be true, false, or a list of untrained, pixels"):
        load_config("smoke", overrides=[f"probe.floors={wrong}"])


def test_a_file_extends_a_preset(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, "extends: in100\nmethod: {predictor: {depth: 2}}"))
    assert config == load_config("in100", overrides=["depth=2"])
    assert "nearest is 'in100'" in refused(file=write(tmp_path, "extends: in10"))


def test_a_file_may_choose_another_arm_than_the_preset_it_extends(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, "extends: in100\nmethod: {masking: {strategy: random, ratio: 0.7}}"))
    assert config.method.masking == RandomMasking(ratio=0.7)


def test_later_sources_win(tmp_path: Path) -> None:
    file = write(tmp_path, "optimizer: {lr: 0.5, weight_decay: 0.5}")
    config = load_config("demo", file, overrides=["lr=0.25"])
    assert (config.optimizer.lr, config.optimizer.weight_decay) == (0.25, 0.5)


@pytest.mark.parametrize(
    ("made", "preset", "expected"),
    [
        ("images", "tiny64", {"source": "folder", "path": "images"}),
        ("images", "demo", {"source": "folder", "path": "images"}),
        ("set.tar.gz", "demo", {"source": "folder", "path": "set.tar.gz"}),
        ("train.h5", "demo", {"source": "hdf5", "path": ".", "train_file": "train.h5"}),
        ("images", "cifar", {"source": "torchvision", "path": "images"}),
    ],
)
def test_data_on_the_command_line_finds_its_source(
    tmp_path: Path, made: str, preset: str, expected: dict[str, str]
) -> None:
    place = tmp_path / made
    place.touch() if "." in made else place.mkdir()
    data = load_config(preset, data=place).data.model_dump(mode="json")
    for name, value in expected.items():
        assert data[name] == (str((tmp_path / value).resolve()) if name == "path" else value)
