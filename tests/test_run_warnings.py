"""Warnings at the start of a run: which settings get one, and what it says."""

import pytest
import torch

from cnnjepa.data import DataSet, open_data
from cnnjepa.data.batches import Order
from cnnjepa.schemas import PretrainConfig, load_config, preset_names
from cnnjepa.training.run_warnings import run_warnings


@pytest.fixture(scope="module")
def few_images() -> DataSet:
    return open_data(load_config("smoke", overrides=["train_images=100", "val_images=100"]).data)


def warnings_of(config: PretrainConfig, data: DataSet, images: int = 126_689, processes: int = 1) -> list[str]:
    return run_warnings(config, data, Order(images, config.runtime.batch_size, 0, processes, 0))


def test_a_learning_rate_at_another_global_batch_than_the_presets_is_said(few_images: DataSet) -> None:
    in100 = load_config("in100", overrides=["runtime.workers=0"])
    assert warnings_of(in100, few_images, processes=4) == []
    (found,) = warnings_of(in100, few_images)
    assert found == (
        "optimizer.lr 0.01 was chosen for a global batch of 512; this run's is 128 (1 x 128), and the rate is not "
        "scaled. To keep the setting, start 4 processes, or set runtime.batch_size=512; otherwise set optimizer.lr"
    )
    (found,) = warnings_of(in100, few_images, processes=2)
    assert "this run's is 256 (2 x 128)" in found and "runtime.batch_size=256" in found


@pytest.mark.parametrize("override", ["optimizer.lr=0.0025", "runtime.batch_size=512", "method.name=random_init"])
def test_a_rate_of_ones_own_the_presets_batch_and_no_training_need_no_warning(
    override: str, few_images: DataSet
) -> None:
    assert warnings_of(load_config("in100", overrides=["runtime.workers=0", override]), few_images) == []


def test_every_preset_trains_at_the_batch_of_its_rate(few_images: DataSet) -> None:
    for name in preset_names():
        config = load_config(name, overrides=["runtime.workers=0"])
        processes = 4 if name.startswith(("in100", "in1k")) else 1
        assert warnings_of(config, few_images, processes=processes) == [], name
        if name != "smoke":
            assert config.optimizer.lr_at_batch == (config.optimizer.lr, processes * config.runtime.batch_size), name


@pytest.mark.parametrize(("images", "dropped"), [(600, "88 of 600 training images (15 %)"), (1023, "511 of 1,023")])
def test_many_images_left_out_of_each_epoch_are_counted(images: int, dropped: str, few_images: DataSet) -> None:
    config = load_config("in100", overrides=["runtime.workers=0", "runtime.batch_size=512"])
    (found,) = warnings_of(config, few_images, images)
    assert f"an epoch is 1 step of 512 images, so that {dropped}" in found
    assert warnings_of(config, few_images, 512 + 51) == []  # at most a tenth


@pytest.mark.parametrize("override", ["arch=convnext_tiny", "predictor.projection_dim=128"])
def test_signed_targets_under_a_relu_are_said(override: str) -> None:
    (found,) = load_config("in100", overrides=[override]).warnings()
    assert "features are signed" in found and "cannot predict negative values" in found


def test_convnexts_features_are_signed_and_resnets_are_not() -> None:
    from cnnjepa.encoders import build_backbone

    images = torch.randn(2, 3, 64, 64)
    convnext = build_backbone(load_config("in100", overrides=["arch=convnext_tiny", "width=0.25"]).encoder, 0)
    assert convnext(images).min() < 0
    assert build_backbone(load_config("demo").encoder, 0)(images).min() >= 0
