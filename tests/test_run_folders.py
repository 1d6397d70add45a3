"""The folder of a run: which checkpoints are kept, and which folders and checkpoints are refused."""

import json
import sys
from pathlib import Path

import pytest
import torch
from runs import (
    assert_same_run,
    in_process,
    small_config,
)

from cnnjepa.errors import RunError
from cnnjepa.schemas import ConfigError, PretrainConfig
from cnnjepa.training.checkpoint import read_checkpoint
from cnnjepa.training.pretrain import pretrain


@pytest.mark.medium
def test_last_before_best_and_those_asked_for_are_kept(tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = pretrain(small_config("keep_epochs=[1]"), run)
    names = {p.name for p in (run / "checkpoints").iterdir()}
    assert names == {"last.pt", "previous.pt", "best.pt", "epoch_1.pt"}
    assert read_checkpoint(run / "checkpoints" / "epoch_1.pt")["step"] == 4
    best = read_checkpoint(run / "checkpoints" / "best.pt")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    seen = {line["step"]: line["knn_top1"] for line in lines if line["kind"] == "probe"}
    assert best["step"] == max(seen, key=lambda step: (seen[step], -step))
    assert result.status == "finished" and json.loads((run / "result.json").read_text())["status"] == "finished"


@pytest.mark.medium
def test_a_finished_run_is_not_run_again_and_a_changed_probe_only_probes(tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = pretrain(small_config(), run)
    stamp = (run / "checkpoints" / "last.pt").stat().st_mtime_ns
    kept = {run / name: (run / name).read_bytes() for name in ("result.json", "config.yaml", "environment.json")}
    assert pretrain(small_config(), run, resume=True) == first
    changed = pretrain(small_config("linear_epochs=4", "probe.encoder=context"), run, resume=True)
    assert changed.probe_hash != first.probe_hash and changed.pretrain_hash == first.pretrain_hash
    assert changed.probed_encoder == "context"
    assert pretrain(small_config(), run, resume=True) == first  # it stays, and is not probed again
    assert {path: path.read_bytes() for path in kept} == kept
    added = json.loads((run / "results" / f"{changed.probe_hash}.json").read_text())
    assert added["probed_encoder"] == "context" and added["probe"]["linear_epochs"] == 4
    assert (changed.cost, changed.software) == (first.cost, first.software)  # the training's
    assert (run / "checkpoints" / "last.pt").stat().st_mtime_ns == stamp


@pytest.mark.processes
def test_a_folder_that_holds_a_run_is_refused_without_resume(undisturbed: Path) -> None:
    before = {p: p.read_bytes() for p in undisturbed.rglob("*") if p.is_file()}
    with pytest.raises(ConfigError, match="finished run; continue it with --resume"):
        pretrain(small_config(), undisturbed)
    assert {p: p.read_bytes() for p in undisturbed.rglob("*") if p.is_file()} == before


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match=r"not a run folder \(it holds thesis.tex\)"):
        pretrain(small_config(), tmp_path)


@pytest.mark.processes
def test_a_checkpoint_of_another_config_is_refused_with_both_hashes(undisturbed: Path) -> None:
    before = (undisturbed / "config.yaml").read_bytes()
    with pytest.raises(ConfigError) as refusal:
        pretrain(small_config("optimizer.lr=0.002"), undisturbed, resume=True)
    state = read_checkpoint(undisturbed / "checkpoints" / "last.pt")
    assert state["pretrain_hash"][:12] in str(refusal.value) and "this config's is" in str(refusal.value)
    assert "optimizer.lr: checkpoint 0.006, asked 0.002" in str(refusal.value)
    assert (undisturbed / "config.yaml").read_bytes() == before


def copy_of(run: Path, to: Path) -> Path:
    import shutil

    shutil.copytree(run, to)
    (to / "result.json").unlink()
    return to


@pytest.mark.processes
def test_a_truncated_checkpoint_is_named_and_the_one_before_offered(undisturbed: Path, tmp_path: Path) -> None:
    run = copy_of(undisturbed, tmp_path / "run")
    last = run / "checkpoints" / "last.pt"
    last.write_bytes(last.read_bytes()[:-1000])
    with pytest.raises(ConfigError) as refusal:
        pretrain(small_config(), run, resume=True)
    previous = run / "checkpoints" / "previous.pt"
    assert "is damaged" in str(refusal.value) and f"--checkpoint {previous}" in str(refusal.value)
    assert in_process(resume_from, small_config(), run, previous) == 0
    assert_same_run(run, undisturbed)


def resume_from(config: PretrainConfig, run: Path, checkpoint: Path) -> None:
    torch.set_num_threads(1)
    pretrain(config, run, resume=True, checkpoint=checkpoint)


def test_a_loss_that_is_not_finite_names_the_step_and_the_last_good_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(RunError, match=r"(loss|weights) .* step \d+; the last good checkpoint is .*last.pt"):
        pretrain(small_config("optimizer.lr=1e12", "log_every_steps=1000", "checkpoint_every_steps=1"), run)
    state = read_checkpoint(run / "checkpoints" / "last.pt")
    assert all(torch.isfinite(v).all() for v in state["method"].values() if v.is_floating_point())
    result = json.loads((run / "result.json").read_text())
    assert result["status"] == "failed" and "not" not in result["probes"] and "step" in result["error"]


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    import fcntl

    run = tmp_path / "run"
    run.mkdir()
    with open(run / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="in use by another process"):
            pretrain(small_config(), run)


@pytest.mark.medium
def test_an_epoch_asked_for_is_kept_although_a_crash_came_before_its_name(tmp_path: Path) -> None:
    run, config = tmp_path / "run", small_config("keep_epochs=[3]")
    pretrain(config, run)
    (run / "checkpoints" / "epoch_3.pt").unlink()
    (run / "result.json").unlink()
    pretrain(config, run, resume=True)
    assert read_checkpoint(run / "checkpoints" / "epoch_3.pt")["step"] == 12


def test_what_to_type_to_go_on_is_quoted_and_does_not_go_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from cnnjepa.cli.train import _again

    typed = ["cnnjepa", "train", "--preset", "demo", "--resume", "--checkpoint", "a.pt", "--set", "scale=[0.1, 0.2]"]
    monkeypatch.setattr(sys, "argv", typed)
    assert _again() == "cnnjepa train --preset demo --set 'scale=[0.1, 0.2]' --resume"
    for name, value in {"WORLD_SIZE": "4", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    assert _again().startswith("torchrun --nproc-per-node 4 -m cnnjepa train --preset demo")
