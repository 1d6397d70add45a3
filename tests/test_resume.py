"""Killed at any moment and resumed, a run ends as if left alone."""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from commands import cnnjepa
from runs import (
    SERVER,
    assert_same_run,
    in_process,
    lasting_trace,
    small_config,
    train_alone,
    train_and_die,
    write_images,
)

from cnnjepa.errors import RunError
from cnnjepa.schemas import ConfigError, PretrainConfig
from cnnjepa.training.checkpoint import read_checkpoint
from cnnjepa.training.pretrain import pretrain


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert in_process(train_alone, small_config(), run) == 0
    return run


def events_of(config: PretrainConfig, folder: Path) -> list[str]:
    tally = folder / "tally.json"
    assert in_process(train_and_die, config, folder / "counted", None, tally) == 0
    return list(json.loads(tally.read_text()))


@pytest.mark.kills
@pytest.mark.processes
def test_a_run_killed_at_twenty_random_moments_and_resumed_ends_the_same(undisturbed: Path, tmp_path: Path) -> None:
    config = small_config()
    events = events_of(config, tmp_path)
    assert_same_run(tmp_path / "counted", undisturbed)
    draw = random.Random(0)
    # Some of every kind (in a checkpoint, a probe, the result, a torn line), the rest anywhere.
    first_of_result = len(events) - 4
    moments = {first_of_result + draw.randrange(4), events.index("link") + 1, events.index("replace") + 1}
    for kind in ("fsync", "replace done", "link done", "metrics line", "linear_curve", "extract", "extract done"):
        moments.add(draw.choice([i for i, name in enumerate(events) if name == kind]) + 1)
    while len(moments) < 20:
        moments.add(draw.randrange(len(events)) + 1)
    for moment in sorted(moments):
        run = tmp_path / f"killed-{moment}"
        assert in_process(train_and_die, config, run, moment, None) == -signal.SIGKILL, events[moment - 1]
        assert in_process(train_alone, config, run, True) == 0, events[moment - 1]
        assert_same_run(run, undisturbed)
        assert not list(run.rglob("*.tmp")), events[moment - 1]


@pytest.mark.kills
@pytest.mark.processes
def test_a_run_killed_again_and_again_by_the_clock_ends_the_same(undisturbed: Path, tmp_path: Path) -> None:
    draw, run = random.Random(1), tmp_path / "run"
    for _ in range(6):
        process = SERVER.Process(target=train_alone, args=(small_config(), run, True))
        process.start()
        time.sleep(draw.uniform(0.3, 2.0))
        process.kill()
        process.join()
    assert in_process(train_alone, small_config(), run, True) == 0
    assert_same_run(run, undisturbed)


@pytest.mark.processes
def test_the_number_of_workers_and_the_logging_may_change_on_resume(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    write_images(folder)
    config = small_config("resident=never", "workers=0", data=folder)
    assert in_process(train_alone, config, tmp_path / "alone") == 0
    assert in_process(train_and_die, config, tmp_path / "run", 40, None) == -signal.SIGKILL
    more = small_config("resident=never", "workers=2", data=folder)
    assert in_process(train_alone, more, tmp_path / "run", True) == 0
    assert_same_run(tmp_path / "run", tmp_path / "alone")


def signal_after_steps(config: PretrainConfig, run: Path, number: int, steps: int) -> None:
    from cnnjepa.errors import Stopped
    from cnnjepa.training import pretrain as module

    torch.set_num_threads(1)
    original, done = module.train_step, []

    def watched(*args):  # type: ignore[no-untyped-def]
        done.append(1)
        if len(done) == steps:
            os.kill(os.getpid(), number)
        return original(*args)

    module.train_step = watched
    try:
        module.pretrain(config, run)
    except Stopped as stopped:
        assert signal.Signals(number).name in str(stopped)
        sys.exit(75)


@pytest.mark.kills
@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_stops_with_a_checkpoint_of_that_step(number: int, undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert in_process(signal_after_steps, small_config(), run, number, 7) == 75
    assert read_checkpoint(run / "checkpoints" / "last.pt")["step"] == 7
    assert in_process(train_alone, small_config(), run, True) == 0
    assert_same_run(run, undisturbed)


def as_flags(*overrides: str) -> list[str]:
    small = ["train_images=96", "val_images=64", "runtime.batch_size=16", "linear_epochs=2", "device=cpu", *overrides]
    return ["train", "--preset", "smoke", *[word for s in small for word in ("--set", s)]]


@pytest.mark.processes
def test_max_hours_leaves_with_code_75_and_says_how_to_go_on(tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "run")]
    stopped = cnnjepa(*as_flags(), *out, "--max-hours", "0")
    assert stopped.returncode == 75
    assert "--resume" in stopped.stderr and "max-hours 0 is over" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["step"] == 1
    again = cnnjepa(*as_flags(), *out, "--resume")
    assert again.returncode == 0, again.stderr
    assert "resuming from step 1" in again.stderr


@pytest.mark.kills
@pytest.mark.processes
def test_sigterm_during_the_final_probe_stops_and_goes_on(tmp_path: Path, undisturbed: Path) -> None:
    run = tmp_path / "run"
    assert in_process(signal_in_probe, small_config(), run) == 75
    assert not (run / "result.json").exists()
    assert in_process(train_alone, small_config(), run, True) == 0
    assert_same_run(run, undisturbed)


def signal_in_probe(config: PretrainConfig, run: Path) -> None:
    from cnnjepa.errors import Stopped
    from cnnjepa.training import conclude as module

    torch.set_num_threads(1)
    original = module.assess

    def watched(*args):  # type: ignore[no-untyped-def]
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*args)

    module.assess = watched
    try:
        pretrain(config, run)
    except Stopped:
        sys.exit(75)


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


def limit_file_size(config: PretrainConfig, run: Path) -> None:
    """From the second checkpoint on, the kernel refuses larger files, as a full disk does."""
    import resource

    from cnnjepa.training import pretrain as module

    torch.set_num_threads(1)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    original, done = module.train_step, []

    def watched(*args):  # type: ignore[no-untyped-def]
        done.append(1)
        if len(done) == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
        return original(*args)

    module.train_step = watched
    try:
        module.pretrain(config, run)
    except RunError as error:
        assert "cannot write" in str(error) and "the earlier file is unchanged" in str(error), error
        sys.exit(1)


@pytest.mark.processes
def test_a_full_disk_fails_with_the_previous_checkpoint_intact(undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert in_process(limit_file_size, small_config("probe.every_epochs=0"), run) == 1
    assert read_checkpoint(run / "checkpoints" / "last.pt")["step"] == 2
    assert not list(run.rglob("*.tmp"))
    assert json.loads((run / "result.json").read_text())["status"] == "failed"


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


@pytest.mark.processes
def test_tensorboard_holds_every_step_once_after_a_crash(undisturbed: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    assert in_process(train_and_die, small_config(), run, 60, None) == -signal.SIGKILL
    assert in_process(train_alone, small_config(), run, True) == 0
    _, lines, _ = lasting_trace(undisturbed)
    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    seen = [(event.step, event.value) for event in board.Scalars("train/loss")]
    assert [step for step, _ in seen] == [line["step"] for line in lines if line["kind"] == "train"]
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert [value for _, value in seen] == pytest.approx(losses)


def group_signal(config: PretrainConfig, run: Path) -> None:
    """As torchrun and SLURM stop a job: SIGTERM to the whole process group, loader processes included."""
    from cnnjepa.errors import Stopped
    from cnnjepa.training import pretrain as module

    os.setpgid(0, 0)
    torch.set_num_threads(1)
    original, done = module.train_step, []

    def watched(*args):  # type: ignore[no-untyped-def]
        done.append(1)
        if len(done) == 5:
            os.killpg(0, signal.SIGTERM)
            time.sleep(1)
        return original(*args)

    module.train_step = watched
    try:
        module.pretrain(config, run)
    except Stopped:
        sys.exit(75)


@pytest.mark.kills
@pytest.mark.processes
def test_sigterm_to_the_whole_group_still_writes_the_checkpoint(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    config = small_config("resident=never", "workers=2", data=tmp_path / "images")
    assert in_process(group_signal, config, tmp_path / "run") == 75
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["step"] == 5


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
