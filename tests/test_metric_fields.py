"""Fields of probe metrics, and the figures of the floors."""

import contextlib
import io
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from recipes import written
from runs import small_config

from cnnjepa.cli.summary import print_summary
from cnnjepa.data import open_data
from cnnjepa.probes.class_means import ClassMeans
from cnnjepa.probes.metric import ProbedFeatures
from cnnjepa.schemas import ConfigError, PretrainConfig, TrialResult, load_config, probe_hash
from cnnjepa.schemas.metric import ClassMeansConfig
from cnnjepa.training.pretrain import pretrain


@pytest.fixture(autouse=True)
def _search_path_of_this_test_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Naming a class adds the working directory to the path."""
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.mark.parametrize(("normalisation", "hits"), [("l2", [1, 1, 0]), ("centred_l2", [0, 1, 0]), ("none", [0, 0, 1])])
def test_the_normalisation_of_class_means_is_a_field(normalisation: Any, hits: list[int]) -> None:
    """The means are (4, 0) and (0, 1). A point (x, y) is nearer to the first by angle where x > y; by distance where
    8x - 2y > 15; by angle around the overall mean (2, 0.5) where 1.632 (x - 2) > 0.993 (y - 0.5)."""
    metric = ClassMeans(ClassMeansConfig(normalisation=normalisation))
    train, labels = torch.tensor([[2.0, 0.0], [6.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 0, 1, 1])
    rest = (torch.tensor([0]), ["a", "b"], torch.device("cpu"))
    found = [
        metric.figures(ProbedFeatures(train, labels, torch.tensor([point]), *rest))["class_mean_top1"]
        for point in ([1.0, 0.4], [1.0, -2.0], [3.0, 4.0])
    ]
    assert found == [100.0 * hit for hit in hits]


def test_fields_of_metrics_are_set_like_those_of_any_section(own: str, tmp_path: Path) -> None:
    written("extend_metric.md", tmp_path, own)
    ridge = f"{own}:Ridge"
    both = [f"probe.metrics=[{ridge},class_means]"]
    fields = ["penalty=0.5", "probe.metrics.normalisation=none"]
    for flags in ([*fields, *both], [*both, *fields]):
        mine, ours = small_config(*flags).probe.metrics
        assert (mine.penalty, ours.normalisation) == (0.5, "none")  # type: ignore[attr-defined]
    file = tmp_path / "probe.yaml"
    file.write_text(f"probe:\n  metrics: [{{name: '{ridge}', penalty: 2}}]\n")
    config = load_config("smoke", file, ["penalty=3"])
    assert config.probe.model_dump(mode="json")["metrics"] == [{"name": ridge, "penalty": 3.0}]
    again = PretrainConfig.model_validate(pickle.loads(pickle.dumps(config)).model_dump(mode="json"))
    assert again.probe == config.probe


def test_fields_of_metrics_are_part_of_the_probe_hash_unless_they_are_the_defaults(own: str, tmp_path: Path) -> None:
    written("extend_metric.md", tmp_path, own)

    def name(*flags: str) -> str:
        return probe_hash(small_config(*flags))

    ours, mine = "probe.metrics=class_means", f"probe.metrics={own}:Ridge"
    assert name(ours) == name(ours, "normalisation=l2") != name(ours, "normalisation=none")
    assert name(mine) == name(mine, "penalty=1") != name(mine, "penalty=2")
    assert name().startswith("52f22cccdc99") and name(ours).startswith("7b8e02d3cd6d")  # as before metrics had fields


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["normalisation=none"], r"probe\.metrics\.normalisation: no requested metric has it \(none\)"),
        (
            ["probe.metrics={name: class_means, scale: 2}"],
            "metric class_means has no field 'scale'; its fields are norm",
        ),
        (["probe.metrics=class_means", "normalisation=l3"], r"probe\.metrics\.normalisation: 'l3' is not valid"),
        (["probe.metrics=true"], "True is no metric; must be one of class_means"),
    ],
)
def test_a_wrong_field_of_a_metric_is_refused(flags: list[str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        small_config(*flags)


@pytest.mark.medium
def test_floors_have_the_figures_of_the_untrained_encoder_and_of_the_raw_pixels(tmp_path: Path) -> None:
    """A run of `random_init` is the untrained encoder; pixels are averaged, normalised and judged by hand."""
    settings = ("method.name=random_init", "probe.every_epochs=0", "linear_epochs=1", "protocols=[published]")
    metric = ("probe.metrics=class_means", "normalisation=none")
    config = small_config(*settings, *metric)
    floors = tmp_path / "floors"
    plain = pretrain(small_config(*settings), tmp_path / "plain", floors=floors)
    kept = {file: file.read_bytes() for file in floors.iterdir()}
    result = pretrain(config, tmp_path / "run", floors=floors)
    assert result.floors.metrics["untrained"] == result.metrics != {}
    assert (result.floors.untrained, result.floors.pixels) == (plain.floors.untrained, plain.floors.pixels)
    assert {file: file.read_bytes() for file in kept} == kept and len(list(floors.iterdir())) == len(kept) + 2
    data = open_data(config.data)
    mean, std = (torch.tensor(values).double().view(3, 1, 1) for values in (config.data.mean, config.data.std))
    (train, labels), (val, truth) = (
        (((split.images / 255 - mean) / std).flatten(1), split.labels)  # type: ignore[attr-defined]
        for split in (data.train, data.val)
    )
    means = torch.stack([train[labels == label].mean(0) for label in range(data.classes)])
    hits = torch.cdist(val, means).argmin(1) == truth
    assert result.floors.metrics["pixels"]["class_mean_top1"] == pytest.approx(100 * float(hits.double().mean()))
    shown = text_of(result)
    assert [line.split()[0] for line in shown.splitlines() if line.startswith("class_mean")] == list(result.metrics)
    start, pixels = (result.floors.metrics[name]["class_mean_worst"] for name in ("untrained", "pixels"))
    (worst,) = [line.split() for line in shown.splitlines() if line.startswith("class_mean_worst")]
    assert [float(cell) for cell in worst[1:]] == pytest.approx([start, start, pixels], abs=1e-4)


def text_of(result: TrialResult) -> str:
    """The summary that `train` prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        print_summary(result, Path("run"))
    return out.getvalue()
