"""Supervised training leaves out what the probes hold out, so that the held-out figures say something."""

import json
from pathlib import Path

import pytest
import torch
from test_benchmark import costs_file, steps_of
from torch import Tensor

from cnnjepa.ablations.data_facts import DataFacts, Resolver, SetSize
from cnnjepa.ablations.equal_time import equal_time_epochs
from cnnjepa.ablations.estimate import estimates
from cnnjepa.data import DataSet, open_data
from cnnjepa.data.batches import Order, training_batches
from cnnjepa.data.held_out import held_out_split, training_set
from cnnjepa.data.resident import ResidentSource
from cnnjepa.errors import Stopped
from cnnjepa.probes.assessment import _some_of_both_parts
from cnnjepa.probes.evaluate import split_rows
from cnnjepa.probes.features import Features
from cnnjepa.schemas import ConfigError, PretrainConfig, load_config
from cnnjepa.training.pretrain import pretrain
from cnnjepa.training.reprobe import reprobe

SMALL = ("train_images=330", "val_images=64", "linear_epochs=2", "floors=false", "encoder.width=0.0625")
# 16 classes, ten with 21 images and six with 20, of which two each are held out: 32 of 330.
LEARNED_FROM = 298


def config_of(method: str = "supervised", *overrides: str) -> PretrainConfig:
    return load_config("smoke", overrides=[f"method.name={method}", "device=cpu", *SMALL, *overrides])


def marked(data: DataSet, held: Tensor) -> DataSet:
    """The same set with its held-out images white."""
    train = data.train
    assert isinstance(train, ResidentSource)
    images = train.images.clone().clamp(max=200)
    images[held] = 255
    white = ResidentSource(images, train.labels, train.class_names, train.fingerprint(), train.name)
    return DataSet(white, data.val, data.name, data.fingerprint)


@pytest.mark.parametrize("split", [(), ("split_seed=3",), ("held_out_fraction=0.3",)])
def test_no_step_sees_an_image_that_the_probes_hold_out(split: tuple[str, ...]) -> None:
    config = config_of("supervised", *split)
    data = open_data(config.data)
    _, held = held_out_split(data.train.labels, config.probe.held_out_fraction, config.probe.split_seed)
    seen = {"supervised": 0, "simclr": 0}
    for method in seen:
        training = training_set(config_of(method, *split), marked(data, held))
        order = Order(training.train.labels.numel(), 16, 0, 1, 0)
        steps = order.steps_per_epoch
        for batch in training_batches(training, config.data, order, 0, steps, 0, torch.device("cpu")):
            seen[method] += int((batch.pixels.flatten(1).amin(1) > 250).sum())
    assert seen["supervised"] == 0 < seen["simclr"]
    assert training_set(config, data).val is data.val


def test_the_split_is_the_whole_set_s_where_images_are_missing_from_the_features() -> None:
    labels = torch.arange(8).repeat_interleave(20)
    probe = config_of().probe
    _, held = held_out_split(labels, probe.held_out_fraction, probe.split_seed)
    places = torch.tensor([place for place in range(160) if place % 7])  # every seventh could not be read
    fit_rows, held_rows = split_rows(
        Features(torch.zeros(len(places), 2), labels[places], part_of=(labels, places)), probe
    )
    assert places[held_rows].tolist() == [place for place in held.tolist() if place % 7]
    assert sorted([*fit_rows.tolist(), *held_rows.tolist()]) == list(range(len(places)))
    # The few images of a probe during training are split alike.
    some = _some_of_both_parts(ResidentSource(torch.zeros(160, 3, 1, 1), labels, "abcdefgh", "", str), 100, config_of())
    assert some.numel() == 100 and len(set(some.tolist()) & set(held.tolist())) == 10


@pytest.mark.medium
def test_steps_follow_the_images_that_are_left_and_a_resumed_run_ends_the_same(tmp_path: Path) -> None:
    config = config_of("supervised", "batch_size=32", "every_epochs=1", "online_images=200")
    result = pretrain(config, tmp_path / "run")
    steps = torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)["step"]
    assert steps == 2 * (LEARNED_FROM // 32) == 18  # 20 with all 330 images
    assert result.train_images == 330 and result.selection is not None

    def stop() -> str | None:
        log = tmp_path / "again" / "metrics.jsonl"
        lines = log.read_text().splitlines() if log.exists() else []  # asked before anything is written, too
        return "enough" if any(json.loads(line)["step"] >= 10 for line in lines) else None

    with pytest.raises(Stopped):
        pretrain(config, tmp_path / "again", stop_asked=stop)
    assert pretrain(config, tmp_path / "again", resume=True).lasting() == result.lasting()


@pytest.mark.medium
def test_a_supervised_run_is_probed_again_on_its_own_split_only(tmp_path: Path) -> None:
    pretrain(config_of("supervised", "epochs=2"), tmp_path / "run")
    with pytest.raises(
        ConfigError, match=r"probe.split_seed=1: this supervised run left out the images that probe\.split"
    ):
        reprobe(tmp_path / "run", overrides=["split_seed=1"])
    again = reprobe(tmp_path / "run", overrides=["split_seed=0", "linear_epochs=3"])
    assert again.written  # complete by its own number of steps, so the result is the run's


@pytest.mark.medium
def test_plans_estimates_and_refusals_count_the_images_that_are_left() -> None:
    resolver = Resolver("cpu", 1)
    config, other = config_of("supervised", "batch_size=298"), config_of("simclr", "batch_size=330")
    _, _, facts = resolver(config)
    assert isinstance(facts, DataFacts)
    assert facts.size.trained(config) == LEARNED_FROM and facts.size.trained(other) == 330
    resolver(other)
    too_many = "298 training images are fewer than a global batch of 299"
    with pytest.raises(ConfigError, match=too_many):
        resolver(config_of("supervised", "batch_size=299"))
    with pytest.raises(ConfigError, match=too_many):
        pretrain(config_of("supervised", "batch_size=299"), Path("never"))
    assert not Path("never").exists()

    # The published sets' sizes are known without their classes' counts.
    in100 = SetSize(126689, 5000, 100)
    assert in100.trained(load_config("in100-supervised")) == 126689 - 100 * 127
    assert in100.trained(load_config("in100-simclr")) == 126689
    whole, part = (
        estimates([config_of(method)], SetSize(1000, 100, 10), 100.0)[0].train_hours
        for method in ("simclr", "supervised")
    )
    assert whole == pytest.approx(1000 * 2 / 100 / 3600) and part == pytest.approx(900 * 2 / 100 / 3600)


def test_equal_time_gives_supervised_training_the_epochs_that_it_lacks(tmp_path: Path) -> None:
    methods = {"cnnjepa": steps_of([0.1]), "supervised": steps_of([0.1])}
    file = costs_file(tmp_path / "costs.json", methods=methods)
    assert equal_time_epochs(file, "demo", ["cnnjepa", "supervised"], {"runtime.epochs": 18}) == {
        "cnnjepa": 18, "supervised": 20,
    }  # fmt: skip
