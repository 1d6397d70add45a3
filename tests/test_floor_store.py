"""Floors shared by the trials of a study: one for each set of settings that its figures depend on."""

from pathlib import Path

import pytest
import torch

from cnnjepa.data import open_data
from cnnjepa.probes.assessment import FloorFigures
from cnnjepa.probes.floors import untrained_encoder
from cnnjepa.schemas import PretrainConfig, ProbeFigures, Probes, load_config
from cnnjepa.schemas.probe import FloorName
from cnnjepa.training.floor_store import FloorStore


def config_of(*overrides: str) -> PretrainConfig:
    return load_config("smoke", overrides=["device=cpu", "resident=always", *overrides])


def floor_of(folder: Path, floor: FloorName, figure: float, *overrides: str, images: str = "images") -> float | None:
    """The floor's linear top-1 by the store, where measuring it would give `figure`."""
    store = FloorStore(folder, config_of(*overrides), images)
    measured = FloorFigures(Probes(held_out=ProbeFigures(linear_top1=figure, knn_top1=1.0)), {})
    found = store(floor, lambda probed: measured).probes
    return found.held_out.linear_top1 if found.held_out else None


# Settings of which both floors are a function, and of the untrained encoder's alone.
BOTH = (
    "probe.resize=40", "probe.linear_epochs=3", "linear_batch_size=64", "split_seed=1", "held_out_fraction=0.2",
    "knn_temperature=0.2", "protocols=[held_out]", "train_images=100", "val_images=100", "mean=[0.1, 0.2, 0.3]",
    "std=[0.1, 0.2, 0.3]", "image_size=64", "resident=never", "on_error=skip",
)  # fmt: skip
UNTRAINED = ("seed=1", "encoder.width=0.25", "arch=resnet34", "channels_last=false")
NEITHER = (
    "every_epochs=5", "online_images=200", "feature_batch_size=7", "probe.encoder=context", "floors=[untrained]",
    "lr=0.1", "epochs=9", "batch_size=16", "backend=masked", "precision=bf16", "predictor.depth=3", "workers=1",
)  # fmt: skip


@pytest.mark.parametrize("floor", ["untrained", "pixels"])
def test_a_floor_is_measured_again_exactly_where_its_figures_may_differ(floor: FloorName, tmp_path: Path) -> None:
    assert floor_of(tmp_path, floor, 10.0) == 10.0 == floor_of(tmp_path, floor, 99.0)
    for figure, setting in enumerate([*BOTH, *(UNTRAINED if floor == "untrained" else ())]):
        assert floor_of(tmp_path, floor, figure, setting) == figure, setting
    for setting in [*NEITHER, *(() if floor == "untrained" else UNTRAINED)]:
        assert floor_of(tmp_path, floor, 99.0, setting) == 10.0, setting
    assert floor_of(tmp_path, floor, 20.0, images="others") == 20.0


def test_a_floor_is_measured_again_with_another_version_of_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert floor_of(tmp_path, "pixels", 10.0) == 10.0
    monkeypatch.setattr(torch, "__version__", "0.0")
    assert floor_of(tmp_path, "pixels", 11.0) == 11.0


def test_metrics_of_a_floor_are_stored_by_their_fields_and_do_not_repeat_the_probes(tmp_path: Path) -> None:
    probes = Probes(held_out=ProbeFigures(linear_top1=10.0))
    calls: list[bool] = []

    def figures(value: float, *flags: str) -> FloorFigures:
        def measure(probed: bool) -> FloorFigures:
            calls.append(probed)
            return FloorFigures(probes if probed else Probes(), {"top1": value} if flags else {})

        return FloorStore(tmp_path, config_of(*flags), "images")("pixels", measure)

    ours = "probe.metrics=class_means"
    assert figures(0.0) == figures(9.0) == FloorFigures(probes, {})
    assert figures(1.0, ours) == figures(9.0, ours) == FloorFigures(probes, {"top1": 1.0})
    assert figures(2.0, ours, "normalisation=none") == FloorFigures(probes, {"top1": 2.0})
    assert calls == [True, False, False]
    next(tmp_path.glob("pixels-metrics-*")).write_text("{")  # a damaged file counts as none
    assert {figures(3.0, ours).metrics["top1"], figures(3.0, ours, "normalisation=none").metrics["top1"]} & {3.0}


def test_the_untrained_encoder_s_statistics_depend_on_the_probes_resize() -> None:
    """Therefore the resize is in the key of the floor, and in the name of a run of `random_init`."""
    small = ("train_images=64", "val_images=64")
    data = open_data(config_of(*small).data)
    means = [
        untrained_encoder(config_of(*small, *more), data, torch.device("cpu")).bn1.running_mean
        for more in ((), ("probe.resize=40",))
    ]
    assert not torch.allclose(*means)
