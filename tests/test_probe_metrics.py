"""Probe metrics: a built-in one and the recipe's, in results and hashes."""

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from recipes import shown, written
from runs import small_config
from typer.testing import CliRunner

from cnnjepa.cli.app import app
from cnnjepa.errors import RunError
from cnnjepa.measuring.metric_check import examine_metric
from cnnjepa.probes.class_means import ClassMeans
from cnnjepa.probes.metric import ProbedFeatures, ProbeMetric, load_metrics, measure
from cnnjepa.schemas import ConfigError, probe_hash
from cnnjepa.schemas.metric import ClassMeansConfig, MetricSection, metric_section
from cnnjepa.training.pretrain import pretrain
from cnnjepa.training.reprobe import reprobe

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _search_path_of_this_test_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Naming a class adds the working directory to the path."""
    monkeypatch.setattr(sys, "path", [*sys.path])


def features(train: list[list[float]], labels: list[int], val: list[list[float]], truth: list[int]) -> ProbedFeatures:
    names = ["a", "b", "c"]
    return ProbedFeatures(
        torch.tensor(train), torch.tensor(labels), torch.tensor(val), torch.tensor(truth), names, CPU
    )  # fmt: skip


def test_class_means_by_hand() -> None:
    """Class a points along x, class b along y; one of three images of a lies nearer to b, both of b are right."""
    given = features(
        [[1.0, 0.0], [100.0, 1.0], [0.0, 2.0]], [0, 0, 1], [[2.0, 0.1], [3.0, 1.0], [1.0, 5.0], [0, 1], [1, 9]],
        [0, 0, 0, 1, 1],
    )  # fmt: skip
    found = ClassMeans(ClassMeansConfig()).figures(given)
    assert found["class_mean_top1"] == pytest.approx(80)
    assert found["class_mean_balanced"] == pytest.approx((200 / 3 + 100) / 2)
    assert found["class_mean_worst"] == pytest.approx(200 / 3)


class Answers(ProbeMetric):
    def __init__(self, answer: object, config: MetricSection = ClassMeansConfig()) -> None:  # noqa: B008
        super().__init__(config)
        self.answer = answer

    def figures(self, features: ProbedFeatures) -> Mapping[str, float]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[return-value]


class Draws(ProbeMetric):
    def figures(self, features: ProbedFeatures) -> Mapping[str, float]:
        return {"drawn": float(torch.rand(()))}


ANY = features([[1.0]], [0], [[1.0]], [0])


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({}, "must give at least one figure"),
        (3.0, "must give at least one figure by name, not 3.0"),
        ({"a b": 1.0}, "'a b' is no name of a figure"),
        ({"loss": float("nan")}, "loss is nan; figures must be finite"),
        ({"loss": "low"}, "loss must be a number; it is 'low'"),
        ({"first": 1.0}, "another metric has a figure 'first'"),
        (KeyError("gone"), "KeyError: 'gone'"),
    ],
)
def test_figures_that_are_not_as_promised_are_refused(answer: object, reason: str) -> None:
    with pytest.raises(RunError, match=f"metric second: .*{reason}"):
        measure({"one": Answers({"first": torch.tensor(2.0)}), "second": Answers(answer)}, ANY)


def test_a_metric_draws_the_same_numbers_at_every_call_and_disturbs_no_generator() -> None:
    before = torch.random.get_rng_state()
    first = measure({"draws": Draws(ClassMeansConfig())}, ANY)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    assert measure({"draws": Draws(ClassMeansConfig())}, ANY) == first


def test_metrics_are_named_in_the_probe_hash_with_their_source(own: str, tmp_path: Path) -> None:
    plain = probe_hash(small_config())
    assert plain == probe_hash(small_config("probe.metrics=[]"))
    hashes = {plain, probe_hash(small_config("probe.metrics=class_means"))}
    for edit in ("", "# edited\n"):
        module = f"{own}_{len(hashes)}"
        (tmp_path / f"{module}.py").write_text(shown("extend_metric.md") + edit, encoding="utf-8")
        hashes.add(probe_hash(small_config(f"probe.metrics=[{module}:Ridge]")))
    assert len(hashes) == 4
    both = [f"[{module}:Ridge,class_means]", f"[class_means,{module}:Ridge]"]
    assert len({probe_hash(small_config(f"probe.metrics={names}")) for names in both}) == 1


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (
            "class_mean",
            r"probe\.metrics: 'class_mean' is no metric; must be one of class_means, or module:Class of your own",
        ),
        ("[class_means,class_means]", r"probe\.metrics: names a metric twice"),
        ("no_such_module:X", "metric no_such_module:X: No module named 'no_such_module'"),
        ("json:dumps", "is a function; it must be a class"),
    ],
)
def test_a_metric_that_does_not_exist_is_refused(names: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        small_config(f"probe.metrics={names}")


def test_a_class_that_is_no_metric_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Fraction must derive from"):
        pretrain(small_config("probe.metrics=fractions:Fraction"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="Stubborn cannot be created from its config"):
        load_metrics(small_config(f"probe.metrics={Stubborn.__module__}:Stubborn").probe.metrics)


class Stubborn(ProbeMetric):
    def __init__(self) -> None:
        raise AssertionError("is never called")

    def figures(self, features: ProbedFeatures) -> Mapping[str, float]:
        return {"answer": 42.0}


def logged(run: Path) -> bytes:
    """Values in a run's TensorBoard files."""
    return b"".join(file.read_bytes() for file in (run / "tensorboard").rglob("events*"))


@pytest.mark.medium
def test_a_metric_of_ours_is_in_the_result_and_in_tensorboard(tmp_path: Path) -> None:
    config = small_config(
        "floors=[untrained]", "probe.every_epochs=0", "epochs=1", "warmup_epochs=0", "probe.metrics=class_means"
    )
    result = pretrain(config, tmp_path / "run")
    assert set(result.metrics) == {"class_mean_top1", "class_mean_balanced", "class_mean_worst"}
    assert 0 <= result.metrics["class_mean_worst"] <= result.metrics["class_mean_balanced"] <= 100
    assert b"hparam/class_mean_top1" in logged(tmp_path / "run")
    assert (
        result.floors.metrics.keys() == {"untrained"}
        and result.floors.metrics["untrained"].keys() == result.metrics.keys()
    )


@pytest.mark.medium
def test_a_metric_of_ones_own_is_in_the_result_and_added_by_probing_again(own: str, tmp_path: Path) -> None:
    written("extend_metric.md", tmp_path, own)
    config = small_config("floors=false", "probe.every_epochs=0", "epochs=1", "warmup_epochs=0")
    plain = pretrain(config, tmp_path / "run")
    assert plain.metrics == {} and b"hparam/class_mean_top1" not in logged(tmp_path / "run")
    added = reprobe(tmp_path / "run", overrides=[f"probe.metrics=[{own}:Ridge,class_means]"])
    assert added.written == tmp_path / "run" / "results" / f"{added.result.probe_hash}.json"
    assert list(added.result.metrics) == [
        "ridge_top1", "ridge_worst_class", "class_mean_top1", "class_mean_balanced", "class_mean_worst",
    ]  # fmt: skip
    assert added.result.probes == plain.probes
    again = reprobe(tmp_path / "run", overrides=[f"probe.metrics=[class_means,{own}:Ridge]"])
    assert again.written is None and again.result.metrics == added.result.metrics


class Changing(ProbeMetric):
    """Shifts the features in place, and counts its calls."""

    calls = 0

    def figures(self, features: ProbedFeatures) -> Mapping[str, float]:
        type(self).calls += 1
        features.val.add_(1)
        return {"calls": self.calls}


def test_the_doctor_makes_one_check_at_a_time(own: str, tmp_path: Path) -> None:
    written("extend_metric.md", tmp_path, own)
    done = CliRunner().invoke(app, ["doctor", "--metric", f"{own}:Ridge"])
    assert done.exit_code == 0 and "two calls give the same figures" in done.output
    done = CliRunner().invoke(app, ["doctor", "--metric", f"{own}:Ridge", "--augmentation", "erase"])
    assert done.exit_code != 0
    assert str(done.exception) == "--augmentation and --metric are separate checks; give one of them"
    done = CliRunner().invoke(app, ["doctor", "--augmentation", "erase", "--set", "erase_probability=1"])
    assert done.exit_code == 0 and "changes 100 % of the images, differently in each epoch" in done.output


def test_the_doctor_tells_a_metric_that_keeps_its_contract_from_one_that_does_not(own: str, tmp_path: Path) -> None:
    written("extend_metric.md", tmp_path, own)
    for name in (f"{own}:Ridge", "class_means"):
        assert [finding.ok for finding in examine_metric(metric_section(name))] == [True, True, True, True]
    figures, deterministic, unchanged, _ = examine_metric(metric_section(f"{Changing.__module__}:Changing"))
    assert figures == ("figures", "calls 1", True)
    assert not deterministic.ok and deterministic.value.startswith("calls is 1.0, then 2.0; draw random numbers")
    assert not unchanged.ok and unchanged.value == "figures changes val; work on a copy"
    (*_, pixels) = examine_metric(metric_section(f"{Singular.__module__}:Singular"))
    assert not pixels.ok and "metric test_probe_metrics:Singular: " in pixels.value
    assert pixels.value.endswith("(on 768 channels; probe.floors=[untrained] leaves it out)")
    (failed,) = examine_metric(metric_section(f"{Failing.__module__}:Failing"))
    assert not failed.ok and failed.value.endswith("Failing: ZeroDivisionError: division by zero")


class Failing(ProbeMetric):
    def figures(self, features: ProbedFeatures) -> Mapping[str, float]:
        return {"ratio": 1 / 0}


class Singular(ProbeMetric):
    def figures(self, features: ProbedFeatures) -> Mapping[str, float]:
        """Inverts a matrix that is singular when there are fewer images than channels."""
        return {"condition": float(torch.linalg.inv(features.train.T @ features.train).norm())}
