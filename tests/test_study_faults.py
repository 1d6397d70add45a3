"""Studies survive what clusters do, on real executors; every test compares with one left alone and counts steps."""

import os
import signal
import time
from pathlib import Path

import pytest
from study_runs import (
    SMALL,
    STEPS,
    assert_same_study,
    environment,
    finish,
    kill,
    processes_with,
    repeated,
    results,
    run,
    start,
    steps,
    wait_until,
    words,
)

from cnnjepa.ablations.study_folder import StudyFolder

pytestmark = [pytest.mark.processes, pytest.mark.ray]

# A cluster of its own takes Ray ten seconds.
EXECUTORS = ["local", pytest.param("ray", marks=pytest.mark.slow)]
# With Ray, a fault meets one trial while the other runs; the local executor runs one after another, and one is enough.
TRIALS = {"local": 1, "ray": 2}


def options(executor: str) -> list[str]:
    return ["--executor", executor, "--depths", "1,2"[: 2 * TRIALS[executor] - 1]]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One trial after another, left alone."""
    root = tmp_path_factory.mktemp("undisturbed")
    code, out = run(words(root, "--executor", "local"), environment(root))
    assert code == 0, out
    assert len(steps(root)) == 2 * STEPS
    return root


def test_ray_gives_the_numbers_of_the_local_executor_and_the_second_call_trains_nothing(
    undisturbed: Path, tmp_path: Path
) -> None:
    code, out = run(words(tmp_path), environment(tmp_path))
    assert code == 0, out
    assert_same_study(tmp_path, undisturbed)
    assert len(steps(tmp_path)) == 2 * STEPS
    begun = time.monotonic()
    code, out = run(words(tmp_path), environment(tmp_path))
    assert code == 0 and "2 done before, 0 left" in out
    assert len(steps(tmp_path)) == 2 * STEPS
    assert time.monotonic() - begun < 60  # no cluster was started; about 4 s on a quiet machine


@pytest.mark.kills
@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_trial_that_is_killed_goes_on_within_the_same_command(
    executor: str, undisturbed: Path, tmp_path: Path
) -> None:
    env = environment(tmp_path, STEP_KILL=f"11:{tmp_path / 'killed'}")
    code, out = run(words(tmp_path, *options(executor)), env)
    assert code == 0, out
    assert (tmp_path / "killed").exists() and "Traceback" not in out
    assert_same_study(tmp_path, undisturbed, TRIALS[executor])
    assert len(steps(tmp_path)) == TRIALS[executor] * STEPS + repeated(tmp_path)


@pytest.mark.kills
@pytest.mark.slow
def test_a_trial_that_is_stopped_alone_goes_on_within_the_same_command(undisturbed: Path, tmp_path: Path) -> None:
    env = environment(tmp_path, STEP_KILL=f"11:{tmp_path / 'killed'}", STEP_SIGNAL="SIGTERM")
    code, out = run(words(tmp_path, *options("local")), env)
    assert code == 0 and (tmp_path / "killed").exists(), out
    assert_same_study(tmp_path, undisturbed, 1)
    assert len(steps(tmp_path)) == STEPS


@pytest.mark.kills
@pytest.mark.slow
def test_a_trial_does_not_outlive_a_driver_that_is_killed_at_once(undisturbed: Path, tmp_path: Path) -> None:
    """While the trial still imports, and before it could know its parent."""
    env = environment(tmp_path, MARK_OF_THIS_TEST="at once")
    driver = start(words(tmp_path, *options("local")), env)
    wait_until(lambda: processes_with(b"MARK_OF_THIS_TEST=at once") != [])
    kill(driver)
    wait_until(lambda: not processes_with(b"MARK_OF_THIS_TEST=at once"), seconds=20)
    assert steps(tmp_path) == []
    code, out = run(words(tmp_path, *options("local")), environment(tmp_path))
    assert code == 0, out
    assert_same_study(tmp_path, undisturbed, 1)
    assert len(steps(tmp_path)) == STEPS


@pytest.mark.kills
@pytest.mark.slow
@pytest.mark.parametrize("executor", TRIALS)
def test_a_driver_that_is_killed_is_gone_on_with_by_the_same_command(
    executor: str, undisturbed: Path, tmp_path: Path
) -> None:
    driver = start(words(tmp_path, *options(executor)), environment(tmp_path, STEP_PAUSE="0.05"))
    wait_until(lambda: len(steps(tmp_path)) >= 9)
    kill(driver)
    code, out = run(words(tmp_path, *options(executor)), environment(tmp_path))
    assert code == 0, out
    assert_same_study(tmp_path, undisturbed, TRIALS[executor])
    assert len(steps(tmp_path)) == TRIALS[executor] * STEPS + repeated(tmp_path)


@pytest.mark.kills
@pytest.mark.parametrize("executor", EXECUTORS)
def test_ctrl_c_stops_with_checkpoints_and_not_a_step_is_made_twice(
    executor: str, undisturbed: Path, tmp_path: Path
) -> None:
    driver = start(words(tmp_path, *options(executor)), environment(tmp_path, STEP_PAUSE="0.1"))
    wait_until(lambda: len(steps(tmp_path)) >= 6)
    os.kill(driver.pid, signal.SIGINT)
    code, out = finish(driver)
    assert code == 75, out
    assert "the same command resumes the study" in out and "Traceback" not in out
    assert len(steps(tmp_path)) < TRIALS[executor] * STEPS
    code, out = run(words(tmp_path, *options(executor)), environment(tmp_path))
    assert code == 0, out
    assert_same_study(tmp_path, undisturbed, TRIALS[executor])
    assert len(steps(tmp_path)) == TRIALS[executor] * STEPS


@pytest.mark.slow
@pytest.mark.parametrize("names", [("one", "other"), ("one", "one")], ids=["two studies", "one study"])
def test_two_drivers_share_a_pool_without_training_anything_twice(
    names: tuple[str, str], undisturbed: Path, tmp_path: Path
) -> None:
    drivers = [
        start(words(tmp_path, "--executor", "local", "--name", name), environment(tmp_path, STEP_PAUSE="0.05"))
        for name in names
    ]
    for driver in drivers:
        code, out = finish(driver)
        assert code == 0, out
    assert_same_study(tmp_path, undisturbed)
    assert len(steps(tmp_path)) == 2 * STEPS
    records = StudyFolder(tmp_path, "one").trials()
    assert {record.pretrain_hash for record in records} == results(tmp_path).keys()


def test_a_failed_trial_is_recorded_and_the_others_go_on(undisturbed: Path, tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    settings = "\n".join(f"  {text.replace('=', ': ')}" for text in SMALL)
    study.write_text(
        f"preset: smoke\nset:\n{settings}\naxes:\n  arm:\n"
        "    sound: {predictor.depth: 1}\n    broken: {predictor.depth: 2, optimizer.lr: 1.0e+12}\n"
    )
    arguments = ["ablate", str(study), "--executor", "local", "--cpus-per-trial", "1", "--root", str(tmp_path),
                 "--images-per-s", "100"]  # fmt: skip
    code, out = run(arguments, environment(tmp_path))
    assert code == 1, out
    assert "failed broken, seed 0" in out and "the loss is nan at step" in out
    broken = next(result for result in results(tmp_path).values() if result["status"] == "failed")
    assert "step" in broken["error"]
    sound = {h: r for h, r in results(tmp_path).items() if r["status"] == "finished"}
    assert sound.items() <= results(undisturbed).items() and len(sound) == 1
    made = len(steps(tmp_path))
    code, out = run(arguments, environment(tmp_path))
    assert code == 1 and len(steps(tmp_path)) == made and "--retry-failed" in out
    code, out = run([*arguments, "--retry-failed"], environment(tmp_path))
    assert code == 1 and len(steps(tmp_path)) > made


@pytest.mark.kills
@pytest.mark.slow
@pytest.mark.parametrize("executor", TRIALS)
def test_a_trial_that_loses_a_loader_process_is_tried_again_from_its_checkpoint(
    executor: str, undisturbed: Path, tmp_path: Path
) -> None:
    env = environment(tmp_path, STEP_RAISE=f"lost:11:{tmp_path / 'lost'}")
    code, out = run(words(tmp_path, *options(executor)), env)
    assert code == 0, out
    assert (tmp_path / "lost").exists()
    assert_same_study(tmp_path, undisturbed, TRIALS[executor])
    assert len(steps(tmp_path)) == TRIALS[executor] * STEPS + repeated(tmp_path)


@pytest.mark.kills
@pytest.mark.slow
@pytest.mark.parametrize("executor", TRIALS)
def test_a_trial_that_loses_a_loader_process_each_time_is_recorded_as_failed_after_three_attempts(
    executor: str, tmp_path: Path
) -> None:
    more = ["--depths", "1", "--executor", executor]
    code, out = run(words(tmp_path, *more), environment(tmp_path, STEP_RAISE="lost:2:"))
    assert code == 1, out
    (failed,) = results(tmp_path).values()
    assert failed["status"] == "failed" and "lower runtime.workers" in failed["error"]
    assert failed["error"].endswith(". Tried 3 times, each from the last checkpoint")
    (sessions,) = (tmp_path / "runs" / "by_hash").glob("*/sessions.jsonl")
    assert len(sessions.read_text().splitlines()) == 3
    code, out = run(words(tmp_path, *more, "--retry-failed"), environment(tmp_path))
    assert code == 0 and len(steps(tmp_path)) == 2 + STEPS, out


@pytest.mark.slow
@pytest.mark.parametrize("executor", TRIALS)
def test_memory_that_runs_out_in_a_distributed_trial_is_recorded_and_not_tried_again(
    executor: str, tmp_path: Path
) -> None:
    more = ["--depths", "1", "--workers-per-trial", "2", "--executor", executor]
    code, out = run(words(tmp_path, *more), environment(tmp_path, STEP_RAISE="memory:2:"))
    assert code == 1 and "ran out of memory" in out, out
    (failed,) = results(tmp_path).values()
    assert failed["status"] == "failed"
    assert failed["error"].startswith(
        "rank 1: the GPU ran out of memory (requested: 2.00 GiB, total capacity of 8.00 GiB)"
    )
    assert "raise runtime.accumulation (now 1;" in failed["error"]
    (sessions,) = (tmp_path / "runs" / "by_hash").glob("*/sessions.jsonl")
    assert len(sessions.read_text().splitlines()) == 1
