"""`data.image_size: [height, width]` in configs: spelling, hash, refusals, warnings, extensions."""

import json
import sys
from pathlib import Path

import pytest
import torch
import yaml
from configs import refused, resolved, write
from study_plans import study, trials_of

from cnnjepa.ablations.arms import arms_of
from cnnjepa.ablations.equal_time import equal_time_epochs
from cnnjepa.ablations.step_cost_file import read_step_costs
from cnnjepa.encoders import build_backbone
from cnnjepa.measuring.cost import method_cost
from cnnjepa.methods import StepDraw, build_method
from cnnjepa.schemas import ConfigError, load_config, pretrain_hash
from cnnjepa.schemas.extent import area, as_text, as_yaml, extent_of, height_width


def test_a_size_is_one_number_or_two() -> None:
    assert height_width(7) == (7, 7) and height_width((10, 6)) == (10, 6)
    assert extent_of(7, 7) == 7 and extent_of(10, 6) == (10, 6)
    assert area(7) == 49 and area((10, 6)) == 60
    assert as_yaml(224) == "224" and as_yaml((320, 192)) == "[320, 192]" and as_text((320, 192)) == "320x192"


def test_height_comes_first_and_the_grid_follows() -> None:
    config = load_config("in100", overrides=["data.image_size=[320,192]"])
    assert config.data.image_size == (320, 192) and config.grid == (10, 6)
    assert config.image_shape == (3, 320, 192)
    assert 0.4 < config.visible_share < 0.6
    assert load_config("in100", overrides=["image_size=[1024,1024]", "probe.resize=null"]).grid == 32
    assert load_config("in100", overrides=["image_size=[1024,640]", "probe.resize=null"]).grid == (32, 20)


def test_a_square_of_two_numbers_is_the_square_with_the_same_name() -> None:
    one, two = resolved("image_size=64"), resolved("image_size=[64,64]")
    assert two.data.image_size == 64 and isinstance(two.data.image_size, int)
    assert one.model_dump_json() == two.model_dump_json()
    assert pretrain_hash(one, "images", 1) == pretrain_hash(two, "images", 1)


def test_both_sides_are_part_of_the_name() -> None:
    sizes = ("64", "[64,128]", "[128,64]")
    assert len({pretrain_hash(resolved(f"image_size={size}"), "images", 1) for size in sizes}) == 3


def test_a_size_is_kept_by_a_file(tmp_path: Path) -> None:
    file = write(tmp_path, "extends: smoke\ndata:\n  image_size: [64, 32]\n")
    config = load_config(file=file)
    assert config.data.image_size == (64, 32)
    assert yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))["data"]["image_size"] == [64, 32]


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("[320]", r"[320] is not valid; must be one whole number of pixels for a square, or [height, width]"),
        ("[320,192,3]", "must be one whole number of pixels for a square, or [height, width]"),
        ("[320.5,192]", "must be one whole number of pixels for a square, or [height, width]"),
        ("[]", "must be one whole number of pixels for a square, or [height, width]"),
        ("[4,192]", "a side of 4 pixels is not valid; must be at least 8"),
        ("[320,200]", "data.image_size [320, 200]: its side 200 is not divisible by the encoder's total stride 32"),
        ("[320,200]", "the nearest valid value is 192 or 224"),
        ("[16,320]", "its side 16 is not divisible by the encoder's total stride 32"),
        ("[tall,wide]", "'tall' is text; write a whole number"),
        ("320x192", "'320x192' is text; write a whole number, or […, …]"),
        (".inf", "inf is not valid; must be one whole number of pixels"),
        ("[32,.inf]", "[32, inf] is not valid; must be one whole number of pixels"),
        ("[32,32]", "gives a grid of one cell at total stride 32"),
    ],
)
def test_sizes_that_no_run_can_have_are_refused(size: str, message: str) -> None:
    assert message in refused(preset="in100", overrides=[f"data.image_size={size}"])


def test_synthetic_images_are_squares_of_the_longer_side() -> None:
    config = load_config("smoke", overrides=["image_size=[24,40]"])
    assert config.data.dataset_name == "synthetic-40"
    assert "between 16 and 256" in refused(preset="smoke", overrides=["image_size=[512,64]"])


def test_crops_that_are_always_stretched_are_a_warning_with_the_remedy() -> None:
    (warning,) = load_config("in100", overrides=["image_size=[320,192]"]).warnings()
    assert "has the aspect (width/height) 0.6" in warning and "crop_ratio=[0.45, 0.8]" in warning
    assert load_config("in100", overrides=["image_size=[320,192]", "crop_ratio=[0.45,0.8]"]).warnings() == []
    assert load_config("in100", overrides=["image_size=[256,224]"]).warnings() == []


def test_the_probe_resizes_to_cover_the_crop() -> None:
    assert load_config("in100", overrides=["image_size=[320,192]", "probe.resize=192"]).probe.resize == 192
    message = refused(preset="in100", overrides=["image_size=[320,192]", "probe.resize=160"])
    assert "probe.resize 160 is below data.image_size [320, 192] (its shorter side is 192)" in message


def test_local_views_have_a_share_of_both_sides() -> None:
    config = load_config("in100-lejepa", overrides=["image_size=[320,192]"])
    assert {view.size for view in config.views} == {(320, 192), (128, 96)}  # 98/224 of 320 is 140, of 192 is 84
    message = refused(preset="in100-lejepa", overrides=["image_size=[320,192]", "local_size=[96,224]"])
    assert "method.local_size [96, 224]: its side 224 must be a multiple" in message


STRATEGIES = """
import torch
from cnnjepa.extend import MaskingSection, MaskingStrategy, Masks, height_width


class SquareOnly(MaskingStrategy):
    class Config(MaskingSection):
        def mean_context(self, grid: int) -> float:
            return grid * grid / 2

    def draw(self, grid, indices_B, seed, step):
        raise AssertionError


class LeftHalf(MaskingStrategy):
    class Config(MaskingSection):
        def mean_context(self, grid) -> float:
            rows, columns = height_width(grid)
            return rows * (columns // 2)

    def draw(self, grid, indices_B, seed, step):
        rows, columns = height_width(grid)
        context = torch.zeros(len(indices_B), rows, columns, dtype=torch.bool)
        context[:, :, : columns // 2] = True
        return Masks(context, ~context)
"""


@pytest.fixture
def strategies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "rectangular_strategies.py").write_text(STRATEGIES)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "rectangular_strategies", raising=False)
    return "rectangular_strategies"


def test_a_strategy_of_ones_own_gets_rows_and_columns(strategies: str) -> None:
    own = f"masking.strategy={strategies}:LeftHalf"
    assert load_config("smoke", overrides=[own, "image_size=[32,48]"]).visible_share == 0.5
    config = load_config("smoke", overrides=[own, "image_size=[32,48]"])
    inputs = build_method(config).inputs(
        (torch.zeros(2, 3, 32, 48),), torch.zeros(2), StepDraw(config.grid, torch.arange(2), 0, 0)
    )
    assert inputs[1].shape == (2, 8, 12) and inputs[1][:, :, :6].all()


def test_a_strategy_for_squares_is_refused_for_rectangles(strategies: str) -> None:
    own = f"masking.strategy={strategies}:SquareOnly"
    assert load_config("smoke", overrides=[own]).visible_share == 0.5
    message = refused(preset="smoke", overrides=[own, "image_size=[32,48]"])
    assert "does not take the 8x12 grid" in message and "cnnjepa.extend.height_width" in message


NETWORKS = """
import torch


class Even(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 8, 8, stride=8)

    def forward(self, x):
        return self.layer(x)


class Square(Even):
    def forward(self, x):
        side = x.shape[2] // 8
        return self.layer(x).flatten(2)[..., : side * side].unflatten(2, (side, side))
"""


def test_a_network_of_ones_own_must_keep_rows_and_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rectangular_networks.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "rectangular_networks", raising=False)
    settings = ["encoder.arch=custom", "total_stride=8", "backend=masked", "method.name=simclr"]
    for size, name in (("32", "Square"), ("[32,48]", "Even")):
        config = load_config(
            "smoke", overrides=[*settings, f"encoder.module=rectangular_networks:{name}", f"image_size={size}"]
        )
        build_method(config)
    config = load_config(
        "smoke", overrides=[*settings, "encoder.module=rectangular_networks:Square", "image_size=[32,48]"]
    )
    with pytest.raises(ConfigError, match=r"images of data.image_size=\[32, 48\] must give features \[1, C, 4, 6\]"):
        build_method(config)


@pytest.mark.parametrize("method", ["cnnjepa", "spark", "simclr", "supervised"])
def test_costs_are_those_of_the_transposed_size_and_grow_with_the_area(method: str) -> None:
    """Masking is random, because blocks are not as high as they are wide."""
    masks = ["masking.strategy=random"] if method in ("cnnjepa", "spark") else []
    costs = [
        method_cost(load_config("smoke", overrides=[f"method.name={method}", *masks, f"image_size={size}"]))
        for size in ("[32,64]", "[64,32]", "32")
    ]
    assert costs[0].flops_per_image == pytest.approx(costs[1].flops_per_image, rel=1e-9)
    assert costs[0].encoder_flops == pytest.approx(2 * costs[2].encoder_flops, rel=0.01)
    assert costs[0].encoder_params == costs[2].encoder_params


def test_the_same_weights_serve_every_size() -> None:
    backbones = [
        build_backbone(load_config("smoke", overrides=[f"image_size={size}"]).encoder, 0) for size in ("32", "[32,64]")
    ]
    states = [backbone.state_dict() for backbone in backbones]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_an_axis_of_sizes_is_labelled_by_height_and_width() -> None:
    asked = study(axes={"data.image_size": [32, [24, 48], [48, 24]], "masking.scale": [[0.1, 0.2]]})
    assert [arm.label for arm in arms_of(asked)] == [
        "image_size=32, scale=0.1–0.2", "image_size=24x48, scale=0.1–0.2", "image_size=48x24, scale=0.1–0.2",
    ]  # fmt: skip
    assert [trial.config.grid for trial in trials_of(asked)] == [8, (6, 12), (12, 6)]


def test_measured_steps_are_of_one_size(tmp_path: Path) -> None:
    steps = {"cnnjepa": {"seconds": [1.0], "flops_per_image": 1e9, "memory_bytes": 10, "images": 16}}
    file = tmp_path / "cost.json"
    record = {"title": "t", "preset": "smoke", "batch": 16, "image_size": [24, 48], "methods": steps, "environment": {}}
    file.write_text(json.dumps(record))
    assert read_step_costs(file).image_size == (24, 48)
    fixed = {"runtime.batch_size": 16}
    with pytest.raises(ConfigError, match=r"image_size \[24, 48\] in the file, 32 requested.*--image-size 32"):
        equal_time_epochs(file, "smoke", ["cnnjepa"], fixed)
    with pytest.raises(
        ConfigError, match=r"image_size \[24, 48\] in the file, \[48, 24\] requested.*image_size=\[48, 24\]"
    ):
        equal_time_epochs(file, "smoke", ["cnnjepa"], {**fixed, "data.image_size": [48, 24]})
