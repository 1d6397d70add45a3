"""A finished run is continued for more epochs: with its state, on the new length's schedule, as a run of its own."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import assert_same_run, lasting_trace, small_config, train_alone, train_until
from typer.testing import CliRunner

from cnnjepa.cli.app import app
from cnnjepa.schemas import ConfigError, PretrainConfig, TrialResult, pretrain_hash, read_config
from cnnjepa.training.pretrain import pretrain
from cnnjepa.training.schedule import Schedule
from cnnjepa.warm_start.request import continued_config, default_folder
from cnnjepa.warm_start.starting import with_continued_run

pytestmark = pytest.mark.medium

# Two steps per epoch, each logged; the probes are as small as can be.
SHORT = (
    "epochs=2", "train_images=32", "every_epochs=0", "log_every_steps=1", "warmup_epochs=1", "linear_epochs=1",
    "protocols=[held_out]", "floors=false",
)  # fmt: skip
CONSTANT = ("method.name=simclr", "warmup_epochs=0", "final_lr_factor=1")


def result_of(run: Path) -> TrialResult:
    return TrialResult.model_validate_json((run / "result.json").read_bytes())


def logged(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two epochs."""
    run = tmp_path_factory.mktemp("continued") / "source"
    train_alone(small_config(*SHORT), run)
    return run


def test_at_a_constant_rate_a_continued_run_ends_like_an_uninterrupted_one(tmp_path: Path) -> None:
    """Only the schedule distinguishes the two, so weights and losses have the same bits; the name differs."""
    train_alone(small_config(*SHORT, *CONSTANT), tmp_path / "half")
    train_alone(small_config(*SHORT, *CONSTANT, "epochs=4"), tmp_path / "whole")
    train_alone(continued_config(str(tmp_path / "half"), ["epochs=4"]), tmp_path / "continued")
    weights, lines, _ = lasting_trace(tmp_path / "continued")
    expected, expected_lines, _ = lasting_trace(tmp_path / "whole")
    assert [name for name in expected if not torch.equal(weights[name], expected[name])] == []
    assert lines == expected_lines[4:]
    continued, whole = result_of(tmp_path / "continued"), result_of(tmp_path / "whole")
    assert continued.probes == whole.probes
    assert continued.pretrain_hash != whole.pretrain_hash
    assert continued.continues is not None and continued.continues.model_dump() == {
        "pretrain_hash": result_of(tmp_path / "half").pretrain_hash, "epochs": 2,
    }  # fmt: skip


def test_rate_and_momentum_follow_the_schedule_of_the_new_length(source: Path, tmp_path: Path) -> None:
    config = continued_config(str(source), ["epochs=5", "optimizer.lr=0.02"])
    train_alone(config, tmp_path / "run")
    schedule = Schedule(small_config(*SHORT, "epochs=5", "optimizer.lr=0.02"), 2)
    lines = logged(tmp_path / "run")
    assert [line["step"] for line in lines] == [5, 6, 7, 8, 9, 10]
    assert [line["lr"] for line in lines] == [schedule.lr(step) for step in range(4, 10)]
    assert [line["ema"] for line in lines] == [schedule.momentum(step) for step in range(4, 10)]
    assert lines[0]["lr"] > logged(source)[-1]["lr"]  # the rate rises again
    assert lines[0]["seconds"] > logged(source)[-1]["seconds"]  # the time of both runs


def test_optimiser_state_and_moving_average_are_taken_over(source: Path, tmp_path: Path) -> None:
    train_until(continued_config(str(source), ["epochs=4"]), tmp_path / "run", 5)
    before, after = (
        torch.load(run / "checkpoints" / "last.pt", weights_only=True) for run in (source, tmp_path / "run")
    )
    assert (before["step"], after["step"], after["continued_epochs"]) == (4, 5, 2)
    steps = {float(state["step"]) for state in after["optimizer"]["state"].values()}
    assert steps == {5.0}  # Adam's own counter, which corrects its bias
    moved = before["method"]["target_encoder.conv1.weight"] - after["method"]["target_encoder.conv1.weight"]
    momentum = Schedule(small_config(*SHORT, "epochs=4"), 2).momentum(4)
    assert momentum is not None
    context = before["method"]["context_encoder.network.conv1.weight"]
    expected = (1 - momentum) * (before["method"]["target_encoder.conv1.weight"] - context)
    assert torch.allclose(moved, expected, atol=1e-7)


def test_a_continued_run_resumes_bit_for_bit_without_the_run_that_it_continues(source: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(source, mine)
    config = continued_config(str(mine), ["epochs=4", "probe.every_epochs=1"])
    train_alone(config, tmp_path / "whole")
    train_until(config, tmp_path / "run", 6)
    shutil.rmtree(mine)
    train_alone(config, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    with pytest.raises(ConfigError, match=r"it does not need it: resume that run with --config RUN/config.yaml"):
        continued_config(str(mine), ["epochs=4"])
    train_alone(read_config(tmp_path / "run" / "config.yaml"), tmp_path / "run", resume=True)


def test_a_run_of_a_warm_start_is_continued_with_the_floor_of_its_weights(source: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(source, weights)
    train_alone(small_config(*SHORT, "floors=[untrained]", f"encoder.init={weights}"), tmp_path / "warm")
    shutil.rmtree(weights)
    train_alone(continued_config(str(tmp_path / "warm"), ["epochs=3"]), tmp_path / "run")
    before, after = result_of(tmp_path / "warm"), result_of(tmp_path / "run")
    assert after.warm_start == before.warm_start is not None
    assert after.floors == before.floors


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("encoder.width=0.25", r"encoder.width: there 0.125, asked 0.25"),
        ("predictor.depth=3", r"method.predictor.depth: there \d, asked 3"),
        ("runtime.seed=1", r"runtime.seed: there 0, asked 1"),
        ("runtime.batch_size=8", r"runtime.batch_size: there 16, asked 8"),
        ("data.train_images=48", r"data.train_images: there 32, asked 48"),
        ("optimizer.weight_decay=0.5", r"optimizer.weight_decay: there 0.01, asked 0.5"),
    ],
)
def test_what_a_continued_run_must_not_change_is_refused(
    change: str, reason: str, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=rf"must not change\n.*{reason}") as refusal:
        pretrain(continued_config(str(source), ["epochs=4", change]), tmp_path / "run")
    assert "It may change runtime.epochs" in str(refusal.value)
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_only_more_epochs_of_a_run_that_has_ended_are_accepted(source: Path, tmp_path: Path) -> None:
    for epochs in ([], ["epochs=2"]):
        with pytest.raises(ConfigError, match=r"that run has 2 epochs; .* --set runtime.epochs=4"):
            continued_config(str(source), epochs)
    train_until(small_config(*SHORT), tmp_path / "stopped", 2)
    with pytest.raises(ConfigError, match=r"has not ended; resume it first with --resume"):
        pretrain(continued_config(str(tmp_path / "stopped"), ["epochs=4"]), tmp_path / "run")


def named(config: PretrainConfig) -> str:
    return pretrain_hash(with_continued_run(config), "images", 1)


def test_the_hash_holds_the_continued_run_not_its_place(source: Path, tmp_path: Path) -> None:
    shutil.copytree(source, tmp_path / "copy")
    here, there = (continued_config(str(run), ["epochs=4"]) for run in (source, tmp_path / "copy"))
    assert named(here) == named(there)
    assert named(here) != named(small_config(*SHORT, "epochs=4", "resident=always"))
    with pytest.raises(ValueError, match=r"runtime.continues is not decided yet"):
        pretrain_hash(here, "images", 1)


def test_a_run_is_continued_by_its_hash_from_the_command_line(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = result_of(source).pretrain_hash
    shutil.copytree(source, tmp_path / "runs" / "by_hash" / name)
    monkeypatch.chdir(tmp_path)
    config = continued_config(name[:8], ["epochs=3"])
    assert config.runtime.continues == tmp_path / "runs" / "by_hash" / name
    assert default_folder(config) == Path("runs") / f"{name[:12]}-3-epochs"
    done = CliRunner().invoke(app, ["train", "--from", name[:8], "--set", "epochs=3", "--preset", "smoke"])
    assert isinstance(done.exception, ConfigError)
    assert "give neither --preset nor --config" in str(done.exception)
    done = CliRunner().invoke(app, ["train", "--from", name[:8], "--set", "epochs=3", "--out", "more"])
    assert done.exit_code in (0, 3), done.output
    assert f"continues run {name[:12]}, whose 2 epochs are among the 3 of this run" in done.output
    assert result_of(tmp_path / "more").epochs == 3
