"""A config that cannot be read is refused in one message that names the field and the nearest possible value."""

from pathlib import Path

import pytest
from configs import refused, write

from cnnjepa.schemas import (
    ConfigError,
    load_config,
)


@pytest.mark.parametrize(
    ("text", "path", "nearest"),
    [
        ("encodr: {arch: resnet18}", "encodr", "encoder"),
        ("encoder: {arc: resnet18}", "encoder.arc", "arch"),
        ("method: {predictor: {detph: 2}}", "method.predictor.detph", "depth"),
        ("method: {masking: {strategy: random, ratoi: 0.5}}", "method.masking.ratoi", "ratio"),
        ("data: {source: folder, trian_split: a}", "data.trian_split", "train_split"),
        ("data: {augmentation: {flips: 0.5}}", "data.augmentation.flips", "flip"),
        ("runtime: {batchsize: 4}", "runtime.batchsize", "batch_size"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_legal_one(
    tmp_path: Path, text: str, path: str, nearest: str
) -> None:
    message = refused(preset="demo", file=write(tmp_path, text))
    assert message.startswith(f"{path}: no such field")
    assert f"nearest is {nearest!r}" in message
    assert "\n" not in message


def test_a_key_of_another_arm_is_refused_and_the_arm_named(tmp_path: Path) -> None:
    message = refused(file=write(tmp_path, "method: {masking: {strategy: random, num_blocks: 3}}"))
    assert "method.masking.num_blocks" in message
    assert "strategy 'random'" in message
    assert "must be one of strategy, ratio" in message


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("depth=two", "method.predictor.depth: 'two'"),
        ("depth=1.5", "method.predictor.depth: 1.5"),
        ("depth=0", "method.predictor.depth: 0"),
        ("lr=-0.1", "optimizer.lr: -0.1"),
        ("lr=.inf", "optimizer.lr: inf"),
        ("lr=.nan", "optimizer.lr: nan"),
        ("lr=", "optimizer.lr: None"),
        ("mean=[1, 2]", "data.mean"),
        ("flip=1.5", "data.augmentation.flip: 1.5"),
        ("arch=resnet17", "encoder.arch: 'resnet17' is not valid; must be one of resnet18, resnet34"),
        ("strategy=rnd", "method.masking.strategy: 'rnd' is not valid; must be one of random, block, multi_block"),
        ("source=foldr", "data.source: 'foldr' is not valid; must be one of synthetic, folder, torchvision, hdf5"),
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_refused_by_name(override: str, expected: str) -> None:
    assert expected in refused(preset="demo", overrides=[override])


def test_a_misspelt_choice_gives_the_nearest() -> None:
    assert "nearest is 'mixed'" in refused(preset="demo", overrides=["strategy=mixd"])
    assert "nearest is 'folder'" in refused(preset="demo", overrides=["source=foldr"])
    assert "nearest is 'resnet18'" in refused(preset="demo", overrides=["arch=resnet17"])


def test_several_mistakes_are_all_told() -> None:
    message = refused(preset="demo", overrides=["depth=two", "lr=-1", "arch=vgg"])
    assert [line.split(":")[0] for line in message.splitlines()] == [
        "method.predictor.depth",
        "encoder.arch",
        "optimizer.lr",
    ]


@pytest.mark.parametrize(
    "text", ["a: [", "[1, 2]", "just words", "extends: smok", "data: words", "method: {masking: random}"]
)
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, text: str) -> None:
    assert refused(file=write(tmp_path, text))


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    assert "none.yaml does not exist" in refused(file=tmp_path / "none.yaml")
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in refused(file=tmp_path / "config.yaml")


@pytest.mark.parametrize("text", ["2020-01-01: 3", "data: {2020-01-01: 3}"])
def test_a_key_that_is_a_date_is_refused(tmp_path: Path, text: str) -> None:
    assert "2020-01-01" in refused(file=write(tmp_path, text))


@pytest.mark.parametrize("text", ["data:\n", "data: words\n"])
def test_data_over_a_file_without_a_data_section_is_no_traceback(tmp_path: Path, text: str) -> None:
    try:
        config = load_config("tiny64", write(tmp_path, text), data=tmp_path)
    except ConfigError:
        return
    assert config.data.source == "folder"
