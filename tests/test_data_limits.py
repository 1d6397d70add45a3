"""Image size and numbers of images of the synthetic set do not hold for other images."""

from pathlib import Path
from typing import Any

import pytest
from test_benchmark import costs_file

from cnnjepa.ablations.equal_time import equal_time_epochs
from cnnjepa.ablations.method_study import method_config, method_study
from cnnjepa.ablations.plan import requested_trials
from cnnjepa.ablations.search.points import config_of
from cnnjepa.cli.options import requested_config
from cnnjepa.schemas import ConfigError, DataConfig, load_config
from cnnjepa.schemas.space import SearchSpace
from cnnjepa.schemas.study import Study


def limits(data: DataConfig) -> tuple[int, int | None, int | None]:
    return data.image_size, data.train_images, data.val_images


ALL = (224, None, None)


@pytest.mark.parametrize("preset", ["demo", "smoke", "ablation", "demo-byol", "demo-supervised"])
def test_other_images_are_used_whole_and_at_their_own_size(preset: str, tmp_path: Path) -> None:
    assert load_config(preset).data.train_images in (640, 6000)
    assert limits(load_config(preset, data=tmp_path).data) == ALL
    assert limits(requested_config(preset, None, None, tmp_path).data) == ALL  # train, masks, doctor, config show
    chosen = ["data.source=folder", f"data.path={tmp_path}"]
    assert limits(load_config(preset, overrides=chosen).data) == ALL
    wished = ["train_images=500", "image_size=64"]
    assert limits(load_config(preset, data=tmp_path, overrides=wished).data) == (64, 500, None)


def test_studies_searches_and_benchmarks_use_other_images_whole(tmp_path: Path) -> None:
    studied = requested_trials(Study(name="s", preset="smoke", axes={"predictor.depth": (1, 2)}), tmp_path)
    compared = requested_trials(method_study("demo", ["cnnjepa", "simclr", "supervised"], {}), tmp_path)
    searched = config_of(SearchSpace(name="s", preset="smoke", space={"optimizer.lr": "log(1e-4, 1e-1)"}), {}, tmp_path)
    assert {limits(config.data) for _, _, config in [*studied, *compared]} == {limits(searched.data)} == {ALL}
    wished = Study(name="s", preset="smoke", axes={"data.train_images": (100, 200)}, set={"image_size": 64})
    sizes = [limits(config.data) for _, _, config in requested_trials(wished, tmp_path)]
    assert sizes == [(64, 100, None), (64, 200, None)]
    # What a step costs, and the epochs that follow from it, are of the same size.
    assert method_config("demo", "byol", tmp_path).data.image_size == 224
    costs = costs_file(tmp_path / "costs.json")  # measured at 32 px
    assert equal_time_epochs(costs, "demo", ["simclr"], {}) == {"simclr": 4}
    with pytest.raises(ConfigError, match="image_size 32 in the file, 224 requested"):
        equal_time_epochs(costs, "demo", ["simclr"], {}, tmp_path)


EXTENDING: list[tuple[str, dict[str, Any]]] = [
    ("", {}),
    ("optimizer: {lr: 0.1}", {}),
    ("data: {augmentation: {flip: 0.0}}", {}),
    ("data: {image_size: 64}", {"image_size": 64}),
    ("data: {train_images: 500, drawing_seed: 3}", {"train_images": 500}),
    ("data: {source: synthetic, train_images: 500, image_size: 64}", {}),
    ("data: {source: folder, path: elsewhere}", {}),
    ("data: {source: folder, path: elsewhere, val_images: 90}", {"val_images": 90}),
]


@pytest.mark.parametrize(("text", "stated"), EXTENDING)
@pytest.mark.parametrize("extends", [True, False])
def test_a_file_s_own_limits_hold_and_those_of_the_preset_below_it_do_not(
    text: str, stated: dict[str, Any], extends: bool, tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"extends: demo\n{text}\n" if extends else text)
    config = load_config(None if extends else "demo", file, data=tmp_path)
    expected = {"image_size": 224, "train_images": None, "val_images": None, **stated}
    assert dict(zip(expected, limits(config.data), strict=True)) == expected
    assert str(config.data.path) == str(tmp_path)  # type: ignore[union-attr]


def test_a_source_that_is_kept_keeps_its_limits(tmp_path: Path) -> None:
    assert limits(load_config("tiny64", data=tmp_path).data) == (64, None, None)
    assert limits(load_config("cifar", data=tmp_path).data) == (32, None, None)
    assert load_config("tiny64", overrides=["source=synthetic"]).data.image_size == 64


def test_an_encoder_for_small_images_on_large_ones_is_warned_about(tmp_path: Path) -> None:
    (said,) = load_config("demo", data=tmp_path).warnings()
    assert "data.image_size 224 at the encoder's total stride 4 is a grid of 56x56 cells" in said
    assert "data.image_size=32 gives 8x8" in said
    assert load_config("demo", data=tmp_path, overrides=["image_size=32"]).warnings() == []
