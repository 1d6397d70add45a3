"""What can be asked for, what is refused and with which words, and how a config is named."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from cnnjepa.schemas import (
    BlockMasking,
    BYOLConfig,
    CNNJEPAConfig,
    ConfigError,
    Cost,
    EncoderConfig,
    FolderData,
    LARSConfig,
    MixedMasking,
    MultiBlockMasking,
    PredictorConfig,
    PretrainConfig,
    Probes,
    RandomMasking,
    SimCLRConfig,
    SyntheticData,
    TrialResult,
    load_config,
    preset_names,
    pretrain_hash,
    probe_hash,
    read_config,
)
from cnnjepa.schemas.base import Section
from cnnjepa.schemas.ema import StepwiseEMAConfig
from cnnjepa.schemas.fields import ConfigField, arms, config_fields
from cnnjepa.schemas.overrides import flat, full_path, merge, nested
from cnnjepa.schemas.reference import config_reference


def write(folder: Path, text: str) -> Path:
    """A YAML file holding `text`."""
    file = folder / "config.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def refused(**asked: Any) -> str:
    """The message with which `load_config` refuses."""
    with pytest.raises(ConfigError) as caught:
        load_config(**asked)
    return str(caught.value)


def sections(model: type[BaseModel]) -> set[type[BaseModel]]:
    """`model` and every section below it, all arms of unions."""
    inner = {arm for info in model.model_fields.values() for arm in arms(info.annotation)}
    return {model}.union(*(sections(arm) for arm in inner))


# --- Frozen, documented, no torch ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "field"),
    [("runtime", "seed"), ("method", "predictor"), ("data", "image_size"), ("probe", "knn_k")],
)
def test_a_config_is_frozen(section: str, field: str) -> None:
    config = load_config("demo")
    with pytest.raises(ValidationError, match="frozen"):
        setattr(getattr(config, section), field, 3)
    with pytest.raises(ValidationError, match="frozen"):
        config.runtime = config.runtime  # type: ignore[misc]


def test_every_section_is_frozen_and_refuses_unknown_keys() -> None:
    for model in sections(PretrainConfig) | sections(TrialResult):
        assert issubclass(model, Section), model
        assert model.model_config["frozen"] and model.model_config["extra"] == "forbid", model


@pytest.mark.parametrize("root", [PretrainConfig, TrialResult])
def test_every_section_and_field_is_documented(root: type[BaseModel]) -> None:
    for model in sections(root):
        assert model.__doc__ and len(model.__doc__.strip()) > 20, model
        for name, info in model.model_fields.items():
            assert info.description and len(info.description) > 8, f"{model.__name__}.{name}"
            assert info.description.strip().endswith((".", '"', "'")), f"{model.__name__}.{name}"


def test_lengths_sizes_and_times_name_their_unit() -> None:
    units = {
        "data.image_size": "pixels",
        "data.resident_limit_gib": "GiB",
        "probe.resize": "pixels",
        "probe.linear_epochs": "Epochs",
        "schedule.warmup_epochs": "Epochs",
        "runtime.batch_size": "Images",
        "runtime.checkpoint_every_steps": "Steps",
        "method.predictor.kernel_size": "cells",
        "runtime.epochs": "Passes",
        "data.crop_scale": "share",
        "runtime.threads": "threads",
    }
    for field in config_fields():
        if field.path in units:
            assert units[field.path] in (field.info.description or ""), field.path


def test_the_reference_lists_every_field_with_its_text() -> None:
    text = config_reference()
    for field in config_fields():
        assert f"- **`{field.path.split('.')[-1]}`**" in text
        assert " ".join((field.info.description or "").split()) in text, field.path


_ELSEWHERE = """
import sys
from cnnjepa.schemas import load_config, pretrain_hash, probe_hash
from cnnjepa.schemas.reference import config_reference
config_reference()
config = load_config("smoke", overrides=["device=cpu", "resident=always", "image_size=128"])
print(pretrain_hash(config, "images", 2), probe_hash(config))
print([name for name in ("torch", "torchvision", "numpy") if name in sys.modules])
"""


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_another_process_gives_the_same_hashes_and_loads_no_torch(hash_seed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    hashes, heavy = done.stdout.splitlines()
    config = resolved()
    assert hashes == f"{pretrain_hash(config, 'images', 2)} {probe_hash(config)}"
    assert heavy == "[]"


# --- Refusals, one message each -----------------------------------------------------------------------------------


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
    assert "legal are strategy, ratio" in message


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
        ("arch=resnet17", "encoder.arch: 'resnet17' is not legal; legal are resnet18, resnet34"),
        ("strategy=rnd", "method.masking.strategy: 'rnd' is not legal; legal are random, block, multi_block, mixed"),
        ("source=foldr", "data.source: 'foldr' is not legal; legal are synthetic, folder, torchvision, hdf5"),
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


# --- Checks across fields -----------------------------------------------------------------------------------------


def test_an_image_size_off_the_stride_is_refused_with_the_nearest_legal() -> None:
    assert "nearest legal is 192 or 224" in refused(preset="in100", overrides=["image_size=200"])
    assert "total stride 32" in refused(preset="in100", overrides=["image_size=200"])
    assert "nearest legal is 64" in refused(preset="in100", overrides=["image_size=40"])


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
    words = str(caught.value).split("nearest legal is ")[-1].split(" [type")[0]
    offered = [int(word) for word in words.split() if word.isdigit()] if "nearest legal" in str(caught.value) else []
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
    assert left in message and "8x8 grid" in message and "legal are ratios between" in message


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


def test_a_kernel_wider_than_the_grid_is_only_a_caution() -> None:
    config = load_config("in100", overrides=["kernel_size=15"])  # 7x7: a corner reaches 6 cells, so 13 is of use
    (caution,) = config.cautions()
    assert "kernel_size 15" in caution and "7x7" in caution
    assert load_config("in100", overrides=["kernel_size=13"]).cautions() == []


# --- Presets ------------------------------------------------------------------------------------------------------


def test_the_presets_are_those_promised() -> None:
    assert set(preset_names()) >= {"smoke", "demo", "ablation", "tiny64", "cifar", "in100", "in1k"}


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_loads_without_cautions_and_survives_a_round_trip(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    assert config.cautions() == []
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
    assert f"legal are {', '.join(preset_names())}" in message and "nearest is 'in100'" in message


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


# --- --set --------------------------------------------------------------------------------------------------------


def endings(path: str) -> list[str]:
    """`a.b.c` → c, b.c, a.b.c."""
    names = path.split(".")
    return [".".join(names[-n:]) for n in range(1, len(names) + 1)]


def test_every_ending_is_either_unambiguous_or_refused_with_all_candidates() -> None:
    paths = sorted({field.path for field in config_fields()})
    for ending in sorted({ending for path in paths for ending in endings(path)}):
        meant = [path for path in paths if path == ending or path.endswith(f".{ending}")]
        if len(meant) == 1 or ending in paths:
            assert full_path(ending) == (ending if ending in paths else meant[0])
            continue
        with pytest.raises(ConfigError, match="ambiguous") as caught:
            full_path(ending)
        assert all(path in str(caught.value) for path in meant), ending


def test_design_md_endings_mean_what_it_says() -> None:
    assert full_path("predictor.depth") == full_path("depth") == "method.predictor.depth"
    assert full_path("optimizer.lr") == full_path("lr") == "optimizer.lr"
    assert full_path("strategy") == "method.masking.strategy"
    assert full_path("seed") == "runtime.seed"
    with pytest.raises(ConfigError, match=r"ambiguous; it could be data\.\S*name, .*optimizer\.name"):
        full_path("name")


@pytest.mark.parametrize(
    ("misspelt", "nearest"),
    [
        ("depht", "depth"),
        ("predictor.dept", "predictor.depth"),
        ("lerning_rate", None),
        ("optimiser.lr", "optimizer.lr"),
        ("batchsize", "batch_size"),
    ],
)
def test_a_misspelt_key_gives_the_nearest(misspelt: str, nearest: str | None) -> None:
    message = refused(preset="demo", overrides=[f"{misspelt}=1"])
    assert "no such config field" in message
    if nearest:
        assert f"nearest is {nearest!r}" in message


@pytest.mark.parametrize("text", ["depth", "=3", "  =3", "lr=["])
def test_a_flag_without_key_or_value_is_refused(text: str) -> None:
    assert "--set" in refused(preset="demo", overrides=[text])


def test_numbers_are_read_as_people_write_them() -> None:
    config = load_config("demo", overrides=["lr=1e-3", "mean=[0, 0.5, 1]", "projection_dim=null", "compile=true"])
    assert config.optimizer.lr == 1e-3
    assert config.data.mean == (0, 0.5, 1)
    assert config.method.predictor.projection_dim is None
    assert config.runtime.compile is True


@pytest.mark.parametrize("preset", ["demo", "in100", "tiny64"])
def test_another_strategy_drops_the_old_arms_keys(preset: str) -> None:
    config = load_config(preset, overrides=["strategy=random"])
    assert config.method.masking == RandomMasking(ratio=load_config(preset).method.masking.ratio)
    assert isinstance(load_config(preset, overrides=["strategy=multi_block"]).method.masking, MultiBlockMasking)
    assert isinstance(load_config(preset, overrides=["strategy=block"]).method.masking, BlockMasking)


def test_another_source_drops_the_old_arms_keys_and_keeps_the_shared_ones() -> None:
    config = load_config("tiny64", data=Path("x"), overrides=["source=synthetic"])
    assert isinstance(config.data, SyntheticData)
    assert config.data.image_size == 64
    assert load_config("cifar", overrides=["source=folder"]).data.mean == (0.491, 0.482, 0.447)


def test_another_strategy_drops_keys_of_the_arm_that_was_only_implied(tmp_path: Path) -> None:
    file = write(tmp_path, "encoder: {stem: small}\ndata: {image_size: 64}\nmethod: {masking: {num_blocks: 3}}")
    assert load_config(None, file).method.masking == MixedMasking(num_blocks=3)
    assert load_config(None, file, ["strategy=random"]).method.masking == RandomMasking()


def test_the_order_of_flags_does_not_matter() -> None:
    flags = ["strategy=random", "ratio=0.7", "depth=1", "source=folder", "train_split=t"]
    configs = {load_config("demo", overrides=list(order)).model_dump_json() for order in itertools.permutations(flags)}
    assert len(configs) == 1


def test_the_last_of_two_equal_flags_wins() -> None:
    assert load_config("demo", overrides=["depth=1", "depth=2"]).method.predictor.depth == 2


_names = st.text("abcd", min_size=1, max_size=3)
_trees = st.recursive(
    st.dictionaries(_names, st.integers(), min_size=1, max_size=3),
    lambda inner: st.dictionaries(_names, st.one_of(st.integers(), inner), min_size=1, max_size=3),
    max_leaves=8,
)


@given(tree=_trees)
def test_a_tree_is_the_merge_of_its_leaves(tree: dict[str, Any]) -> None:
    rebuilt: dict[str, Any] = {}
    for path, value in flat(tree).items():
        rebuilt = merge(rebuilt, nested(path, value))
    assert rebuilt == tree


@given(tree=_trees, over=_trees)
def test_merging_keeps_what_is_laid_over_and_changes_no_input(tree: dict[str, Any], over: dict[str, Any]) -> None:
    before = json.dumps([tree, over])
    merged = flat(merge(tree, over))
    assert {path: merged.get(path) for path in flat(over)} == flat(over)
    assert merge(over, over) == over
    assert json.dumps([tree, over]) == before


# --- Hashes -------------------------------------------------------------------------------------------------------


def resolved(*overrides: str) -> PretrainConfig:
    """The smoke preset with nothing left on auto."""
    return load_config("smoke", overrides=["device=cpu", "resident=always", "image_size=128", *overrides])


@pytest.mark.parametrize("section", ["runtime.device", "data.resident"])
def test_a_config_with_auto_left_cannot_be_hashed(section: str) -> None:
    config = load_config(
        "smoke", overrides=[f for f in ("device=cpu", "resident=always") if f.split("=")[0] not in section]
    )
    with pytest.raises(ValueError, match=section):
        pretrain_hash(config, "images", 1)


def test_the_hash_is_a_full_sha256() -> None:
    assert set(pretrain_hash(resolved(), "images", 1)) <= set("0123456789abcdef")
    assert len(pretrain_hash(resolved(), "images", 1)) == len(probe_hash(resolved())) == 64


def test_images_and_world_size_change_the_hash() -> None:
    hashes = {pretrain_hash(resolved(), images, world) for images in ("a", "b") for world in (1, 2, 4)}
    assert len(hashes) == 6


def test_two_processes_of_half_the_batch_are_another_run() -> None:
    """Batch-norm statistics are a process's own."""
    assert pretrain_hash(resolved("runtime.batch_size=32"), "a", 2) != pretrain_hash(
        resolved("runtime.batch_size=64"), "a", 1
    )


# A legal value other than the one in force, where it cannot be told from the type.
_OTHER = {
    "method.predictor.kernel_size": 5,
    "method.predictor.projection_dim": 64,
    "method.masking.scale": [0.16, 0.2],
    "method.masking.aspect": [0.75, 1.4],
    "method.ema.end": 0.999,
    "encoder.width": 0.25,
    "encoder.stages": 4,
    "data.image_size": 192,
    "data.path": "elsewhere",
    "data.train_images": 7,
    "data.val_images": 7,
    "data.augmentation.crop_scale": [0.3, 1.0],
    "data.augmentation.crop_ratio": [0.8, 1.2],
    "data.mean": [0.1, 0.2, 0.3],
    "data.std": [0.1, 0.2, 0.3],
    "optimizer.betas": [0.8, 0.9],
    "optimizer.clip_norm": 1.0,
    "optimizer.lr_at_batch": [0.5, 7],
    "runtime.batch_size": 66,
    "runtime.threads": 3,
    "runtime.keep_epochs": [1],
    "runtime.device": "cuda",
    "data.resident": "never",
    "runtime.accumulation": 2,
    "probe.protocols": ["published"],
    "method.view.blur_sigma": [0.2, 1.0],
    "method.first_view.blur_sigma": [0.2, 1.0],
    "method.second_view.blur_sigma": [0.2, 1.0],
    "method.view.solarise": 0.3,
    "method.first_view.solarise": 0.3,
    "optimizer.weight_decay_end": 0.1,
    "optimizer.excluded": ["bias"],
    "schedule.warmup_start_factor": 0.2,
    "probe.held_out_lrs": [0.5],
    "probe.held_out_ks": [3],
    "probe.resize": 300,
}
# Where images lie and whether they may be fetched says nothing about what they are; their fingerprint does.
_PLACES = {"data.path", "data.download"}
# Probe settings that decide what is trained, and those on which no figure of a result depends.
_TRAINED_ON = {
    "random_init": ("probe.resize",),
    "supervised": ("probe.held_out_fraction", "probe.split_seed"),
}
_NO_FIGURE = ("probe.every_epochs", "probe.online_images", "probe.feature_batch_size")


def changed(config: PretrainConfig, field: ConfigField) -> PretrainConfig | None:
    """`config` with another legal value of `field`; None for a choice among one."""
    tree = config.model_dump(mode="json")
    now, annotation = flat(tree)[field.path], field.info.annotation
    if field.path == "probe.encoder":  # `auto` is one of the two, and not every method has both
        both = ["target", "context"] if hasattr(config.method, "ema") else []
        other = next((encoder for encoder in both if encoder != config.probed_encoder), None)
    elif field.path in _OTHER:
        other = _OTHER[field.path]
    elif get_origin(annotation) is Literal:
        others = [value for value in get_args(annotation) if value not in (now, "auto")]
        other = others[0] if others else None
    else:
        other = {bool: lambda v: not v, int: lambda v: v + 1, float: lambda v: v * 0.5, str: lambda v: v + "x"}[
            type(now)
        ](now)
    return None if other is None else PretrainConfig.model_validate(merge(tree, nested(field.path, other)))


def parts(section: BaseModel) -> set[type[BaseModel]]:
    """The classes of a section and of everything in it."""
    inner = [value for name in type(section).model_fields if isinstance(value := getattr(section, name), BaseModel)]
    return {type(section)}.union(*(parts(value) for value in inner))


def assert_hashes_follow_the_numbers(config: PretrainConfig) -> int:
    """Changes every field in turn; gives how many."""
    in_force, looked_at = parts(config), 0
    for field in config_fields():
        if field.owner not in in_force:
            continue
        other = changed(config, field)
        if other is None or field.path.endswith((".strategy", ".source")):
            continue
        looked_at += 1
        same = pretrain_hash(config, "images", 1) == pretrain_hash(other, "images", 1)
        numbers_stay = (
            field.path in _PLACES
            or (field.path.startswith("probe.") and field.path not in _TRAINED_ON.get(config.method.name, ()))
            or "not hashed" in (field.info.description or "").lower()
        )
        assert same == numbers_stay, field.path
        judged_alike = field.path in _NO_FIGURE or (
            not field.path.startswith("probe.") and field.path != "runtime.precision"
        )
        assert (probe_hash(config) == probe_hash(other)) == judged_alike, field.path
    return looked_at


@pytest.mark.parametrize("source", ["folder", "hdf5", "torchvision", "synthetic"])
def test_exactly_the_fields_that_change_the_numbers_change_the_pretrain_hash(source: str) -> None:
    assert assert_hashes_follow_the_numbers(resolved(f"source={source}")) > 60


@pytest.mark.parametrize("method", ["simclr", "byol", "vicreg"])
def test_the_same_holds_for_other_methods_and_lars(method: str) -> None:
    config = resolved(f"method.name={method}", "optimizer.name=lars", "probe.floors=false")
    assert assert_hashes_follow_the_numbers(config) > 60


@pytest.mark.parametrize("method", ["random_init", "supervised"])
def test_probe_settings_that_decide_what_is_trained_are_in_the_pretrain_hash(method: str) -> None:
    assert assert_hashes_follow_the_numbers(resolved(f"method.name={method}")) > 40


def test_random_init_without_a_resize_keeps_its_name_and_probes_keep_theirs_at_the_defaults() -> None:
    """Written down before these settings moved into and out of the hashes."""
    overrides = ["device=cpu", "resident=always", "method.name=random_init"]
    smoke = load_config("smoke", overrides=overrides)
    before = "8f22d561743845b0f02f217b395db89acb3ba1bac4b5aa810c6b89699153a670"
    assert pretrain_hash(smoke, "images", 1) == before
    other = load_config("smoke", overrides=[*overrides, "probe.resize=40"])
    assert pretrain_hash(other, "images", 1).startswith("c9d587459feb")
    assert probe_hash(load_config("demo", overrides=["every_epochs=0"])).startswith("030e981c19e5")


def test_runs_from_before_there_were_other_methods_keep_their_names() -> None:
    """Written down before `method` and `optimizer` became unions; a checkpoint of then must still be resumed."""
    before = {
        "demo": ("d0c2574497e48f50c6b2ca6fa85e8c452ea52d3f9192a07492f30f034cdc93a1", "030e981c19e5"),
        "in100": ("3d16fcb42bbff2b2ea0be251d0c9ab8b1a98e3c179618b7b9f1232b19cfa1bab", "94cf80e74c3c"),
        "tiny64": ("a6d7ed6fc585cc213e77e9814fd3a4df86bd468d1caadd92fdd6481fc2809278", "a5b1533ea25d"),
    }
    for preset, (pretrained, probed) in before.items():
        then = ["optimizer.lr=0.006"] if preset == "tiny64" else []  # its rate of then
        config = load_config(preset, overrides=["device=cpu", "resident=always", *then])
        assert pretrain_hash(config, "images", 1) == pretrained
        assert probe_hash(config).startswith(probed)


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
    assert "method.name: 'simcrl' is not legal; legal are cnnjepa," in text and "nearest is 'simclr'" in text
    text = refused(preset="demo", overrides=["method.name=simclr", "predictor.depth=2"])
    assert "method.predictor: no such field of name 'simclr'; legal are" in text
    text = refused(preset="demo", overrides=["method.name=vicreg", "probe.encoder=target"])
    assert "vicreg has no moving average" in text and "legal are auto and context" in text


def test_lars_that_begins_without_decay_is_refused() -> None:
    asked = ["optimizer.name=lars", "weight_decay=0", "weight_decay_end=1e-5"]
    assert "begin above 0" in refused(preset="demo", overrides=asked)


def test_the_backend_of_the_run_is_part_of_its_name() -> None:
    assert pretrain_hash(resolved("backend=masked"), "a", 1) != pretrain_hash(resolved("backend=packed"), "a", 1)


# --- Results ------------------------------------------------------------------------------------------------------


def result(**volatile: Any) -> TrialResult:
    return TrialResult(
        pretrain_hash="a",
        probe_hash="b",
        method="cnnjepa",
        encoder="resnet18",
        dataset="synthetic-32",
        seed=0,
        status="finished",
        final_loss=0.25,
        skipped_images=("x.jpg",),
        **volatile,
    )


def cost(seconds: float) -> Cost:
    return Cost(
        encoder_params=1,
        predictor_params=2,
        flops_per_image=3,
        train_seconds=seconds,
        gpu_hours=0,
        images_per_s=seconds,
        peak_memory_bytes=4,
    )


def test_two_equal_runs_share_everything_but_the_volatile_fields() -> None:
    one = result(cost=cost(1.0), software={"host": "a"}, started="2020", finished="2021")
    two = result(cost=cost(2.0), software={"host": "b"}, started="2030", finished="2031")
    assert one != two
    assert one.lasting() == two.lasting()
    assert set(TrialResult.model_fields) - set(one.lasting()) == {
        "cost",
        "software",
        "probe_software",
        "started",
        "finished",
        "final_loss",  # a mean over the logging interval, which is free to change
        "log_tail",
    }
    assert one.lasting() != result().model_copy(update={"epochs": 7}).lasting()


def test_a_result_survives_json_and_refuses_what_it_does_not_know() -> None:
    one = result(cost=cost(1.0), probes=Probes())
    assert TrialResult.model_validate_json(one.model_dump_json()) == one
    with pytest.raises(ValidationError):
        TrialResult.model_validate({**one.model_dump(), "accuracy": 0.0})
    with pytest.raises(ValidationError):
        TrialResult.model_validate({**one.model_dump(), "final_loss": float("nan")})


def test_the_contracts_names_stand_in_the_result() -> None:
    """Scripts and people read them; renaming one breaks both."""
    names = flat(json.loads(json.dumps(_names_of(TrialResult))))
    for protocol in ("published", "held_out"):
        for figure in ("linear_top1", "linear_top5", "knn_top1", "knn_top5"):
            assert f"probes.{protocol}.{figure}" in names
            assert f"floors.untrained.{protocol}.{figure}" in names
            assert f"floors.pixels.{protocol}.{figure}" in names
    for path in (
        "diagnostics.rankme",
        "diagnostics.feature_std",
        "cost.encoder_params",
        "cost.predictor_params",
        "cost.flops_per_image",
        "cost.train_seconds",
        "cost.gpu_hours",
        "cost.images_per_s",
        "cost.peak_memory_bytes",
        "pretrain_hash",
        "probe_hash",
        "method",
        "encoder",
        "dataset",
        "seed",
        "status",
        "error",
        "software",
        "started",
        "finished",
    ):
        assert path in names


def _names_of(model: type[BaseModel]) -> dict[str, Any]:
    return {
        name: _names_of(inner[0]) if (inner := arms(info.annotation)) else 0
        for name, info in model.model_fields.items()
    }
