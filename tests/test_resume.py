"""A run that is killed or stopped and resumed ends like one that was not."""

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
from cnnjepa.schemas import PretrainConfig
from cnnjepa.training.checkpoint import read_checkpoint
from cnnjepa.training.pretrain import pretrain


def events_of(config: PretrainConfig, folder: Path) -> list[str]:
    tally = folder / "tally.json"
    assert in_process(train_and_die, config, folder / "counted", None, tally) == 0
    return list(json.loads(tally.read_text()))


@pytest.mark.kills
@pytest.mark.processes
@pytest.mark.slow
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
@pytest.mark.slow
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
    config = small_config("resident=never", "workers=0", "floors=false", data=folder)
    assert in_process(train_alone, config, tmp_path / "alone") == 0
    assert in_process(train_and_die, config, tmp_path / "run", 40, None) == -signal.SIGKILL
    more = small_config("resident=never", "workers=2", "floors=false", data=folder)
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
    assert "--resume" in stopped.stderr and "max-hours 0 has passed" in stopped.stderr
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
