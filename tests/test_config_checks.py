"""Checks across the fields of a config."""

from pathlib import Path
from typing import Any

import pytest
from configs import refused, write
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cnnjepa.schemas import (
    BYOLConfig,
    CNNJEPAConfig,
    EncoderConfig,
    FolderData,
    LARSConfig,
    MixedMasking,
    PredictorConfig,
    PretrainConfig,
    RandomMasking,
    SimCLRConfig,
    load_config,
    read_config,
)
from cnnjepa.schemas.ema import StepwiseEMAConfig


def test_an_image_size_off_the_stride_is_refused_with_the_nearest_legal() -> None:
    assert "nearest valid value is 192 or 224" in refused(preset="in100", overrides=["image_size=200"])
    assert "total stride 32" in refused(preset="in100", overrides=["image_size=200"])
    assert "nearest valid value is 64" in refused(preset="in100", overrides=["image_size=40"])


def test_a_grid_of_one_cell_is_refused() -> None:
    message = refused(preset="in100", overrides=["image_size=32"])
    assert "one cell" in message and "at least 64" in message


@given(
    size=st.integers(8, 600),
    stem=st.sampled_from(["imagenet", "half", "small"]),
    stages=st.sampled_from([3, 4]),
)
def test_an_image_size_is_legal_exactly_when_it_makes_a_grid_and_offered_sizes_are_legal(
    size: int, stem: str, stages: int
) -> None:
    encoder = EncoderConfig(stem=stem, stages=stages)
    stride = {"imagenet": 4, "half": 2, "small": 1}[stem] * {3: 4, 4: 8}[stages]
    assert encoder.total_stride == stride

    def build(side: int) -> PretrainConfig:
        method = CNNJEPAConfig(masking=RandomMasking(ratio=0.5))
        return PretrainConfig(method=method, encoder=encoder, data=FolderData(image_size=side))

    if size % stride == 0 and size >= 2 * stride:
        assert build(size).grid == size // stride
        return
    with pytest.raises(ValidationError) as caught:
        build(size)
    words = str(caught.value).split("nearest valid value is ")[-1].split(" [type")[0]
    offered = [int(word) for word in words.split() if word.isdigit()] if "nearest valid" in str(caught.value) else []
    for side in offered:
        assert build(side).grid >= 2
        assert abs(side - size) < 2 * stride
    assert offered or size == stride


@pytest.mark.parametrize("strategy", ["multi_block", "mixed"])
@pytest.mark.parametrize("sampler", ["faithful", "unbiased"])
def test_blocks_that_never_exceed_min_keep_on_a_4x4_grid_are_refused(strategy: str, sampler: str) -> None:
    message = refused(preset="demo", overrides=[f"strategy={strategy}", f"sampler={sampler}", "image_size=16"])
    assert "4x4 grid" in message and "min_keep 5" in message and "image_size" in message
    legal = ["min_keep=2", "masking.scale=[0.3, 0.4]"]
    load_config("demo", overrides=[f"strategy={strategy}", "image_size=16", "num_blocks=1", *legal])


def test_blocks_that_leave_too_little_context_are_refused() -> None:
    message = refused(preset="in100", overrides=["masking.scale=[0.7, 0.8]", "num_blocks=8", "sampler=unbiased"])
    assert "leave about" in message and "of 49 cells as context" in message and "masking.num_blocks" in message


@pytest.mark.parametrize(("ratio", "left"), [(0.999, "leaves 0 of 64"), (0.001, "leaves 64 of 64")])
@pytest.mark.parametrize("strategy", ["random", "mixed"])
def test_a_ratio_without_context_or_target_is_refused(strategy: str, ratio: float, left: str) -> None:
    message = refused(preset="demo", overrides=[f"strategy={strategy}", f"ratio={ratio}"])
    assert left in message and "8x8 grid" in message and "must be between" in message


@given(ratio=st.floats(0.001, 0.999), grid=st.integers(2, 16))
def test_a_legal_ratio_keeps_one_cell_of_each_kind(ratio: float, grid: int) -> None:
    masking = RandomMasking(ratio=ratio)
    try:
        masking.check(grid)
    except ValueError:
        assert masking.kept(grid) in (0, grid * grid)
    else:
        assert 1 <= masking.kept(grid) <= grid * grid - 1


@pytest.mark.parametrize(
    ("masking", "name"),
    [
        ({"scale": (0.3, 0.2)}, "least"),
        ({"scale": (0.0, 0.2)}, "least"),
        ({"scale": (0.5, 1.2)}, "at most 1"),
        ({"aspect": (2.0, 1.0)}, "least"),
    ],
)
def test_ranges_must_rise(masking: dict[str, Any], name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        MixedMasking(**masking)


def test_crop_ranges_must_rise_and_stay_within_the_image() -> None:
    assert "0 < least <= greatest" in refused(preset="demo", overrides=["crop_scale=[0.5, 0.2]"])
    assert "at most 1" in refused(preset="demo", overrides=["crop_scale=[0.5, 1.2]"])
    assert "0 < least <= greatest" in refused(preset="demo", overrides=["crop_ratio=[0, 1]"])


@pytest.mark.parametrize("warmup", [16, 17.5])
def test_a_warm_up_as_long_as_the_run_is_refused(warmup: float) -> None:
    message = refused(preset="demo", overrides=[f"warmup_epochs={warmup}", "runtime.epochs=16"])
    assert f"schedule.warmup_epochs {warmup:g}" in message and "runtime.epochs 16" in message
    load_config("demo", overrides=["warmup_epochs=15.5", "runtime.epochs=16"])


@pytest.mark.parametrize(
    ("batch", "parts", "legal"), [(128, 3, False), (128, 128, False), (128, 64, True), (6, 3, True)]
)
def test_accumulation_must_divide_the_batch_into_parts_of_two(batch: int, parts: int, legal: bool) -> None:
    overrides = [f"runtime.batch_size={batch}", f"accumulation={parts}"]
    if legal:
        assert load_config("demo", overrides=overrides).runtime.accumulation == parts
    else:
        message = refused(preset="demo", overrides=overrides)
        assert f"runtime.accumulation {parts} must divide runtime.batch_size {batch}" in message


@given(
    width=st.one_of(st.floats(0.01, 4), st.sampled_from([0.1, 0.3, 1.95, 3.99])),
    arch=st.sampled_from(["resnet18", "resnet50", "resnext50_32x4d"]),
)
def test_a_width_gives_whole_channels_or_names_one_that_does(width: float, arch: str) -> None:
    unit, least = (4, 1) if arch == "resnext50_32x4d" else (64, 4)
    try:
        EncoderConfig(arch=arch, width=width)
    except ValidationError as error:
        assert (unit * width) % 1 or unit * width < least
        offered = float(str(error).split("for example ")[1].split()[0])
        EncoderConfig(arch=arch, width=offered)
    else:
        assert (unit * width) % 1 == 0 and unit * width >= least


@pytest.mark.parametrize("kernel", range(1, 32))
def test_a_kernel_is_odd_or_refused_with_its_neighbours(kernel: int) -> None:
    if kernel % 2:
        assert PredictorConfig(kernel_size=kernel).kernel_size == kernel
    else:
        with pytest.raises(ValidationError, match=f"nearest are {kernel - 1} and {kernel + 1}"):
            PredictorConfig(kernel_size=kernel)


def test_an_unnormalised_cosine_is_refused() -> None:
    message = refused(preset="demo", overrides=["loss.name=cosine", "normalized=false"])
    assert "loss.normalized must be true" in message
    load_config("demo", overrides=["loss.name=l2", "normalized=false"])


def test_a_falling_momentum_is_refused() -> None:
    assert "momentum must not fall" in refused(preset="demo", overrides=["ema.start=0.99", "ema.end=0.9"])


def test_kept_epochs_outside_the_run_are_refused() -> None:
    assert "names [0, 99]" in refused(preset="demo", overrides=["keep_epochs=[0, 3, 99]"])


def test_a_kernel_wider_than_the_grid_is_only_a_warning() -> None:
    config = load_config("in100", overrides=["kernel_size=15"])  # 7x7: a corner reaches 6 cells, so 13 is of use
    (warning,) = config.warnings()
    assert "kernel_size 15" in warning and "7x7" in warning
    assert load_config("in100", overrides=["kernel_size=13"]).warnings() == []


def test_another_method_drops_the_old_methods_keys(tmp_path: Path) -> None:
    for preset in ("demo", "in100", "tiny64"):
        config = load_config(preset, overrides=["method.name=simclr"])
        assert config.method == SimCLRConfig()
        assert config.probed_encoder == "context" and config.visible_share == 1.0
    file = write(tmp_path, "extends: demo\nmethod: {name: byol, ema: {start: 0.98}}\noptimizer: {name: lars}")
    config = read_config(file)
    assert config.method == BYOLConfig(ema=StepwiseEMAConfig(start=0.98)) and config.optimizer == LARSConfig()
    assert load_config("demo", overrides=["method.name=simclr", "temperature=0.2"]).method.temperature == 0.2


def test_a_misspelt_method_and_a_key_of_another_are_refused() -> None:
    text = refused(preset="demo", overrides=["method.name=simcrl"])
    assert "method.name: 'simcrl' is not valid; must be one of cnnjepa," in text and "nearest is 'simclr'" in text
    text = refused(preset="demo", overrides=["method.name=simclr", "predictor.depth=2"])
    assert "method.predictor: no such field of name 'simclr'; must be one of" in text
    text = refused(preset="demo", overrides=["method.name=vicreg", "probe.encoder=target"])
    assert "vicreg has no moving average" in text and "must be auto or context" in text


def test_lars_that_begins_without_decay_is_refused() -> None:
    asked = ["optimizer.name=lars", "weight_decay=0", "weight_decay_end=1e-5"]
    assert "begin above 0" in refused(preset="demo", overrides=asked)
