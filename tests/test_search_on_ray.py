"""Real searches on Ray: killed, interrupted, pruned, and with dying trials."""

import csv
import re
import signal
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from runs import assert_same_run, in_process, train_alone
from study_runs import environment, finish, kill, repeated, run, small, start, steps, wait_until

from cnnjepa.ablations.pool import Pool
from cnnjepa.ablations.search.storage import AGAIN, tried
from cnnjepa.schemas import read_config


def words(root: Path, *more: str) -> list[str]:
    flags = [word for text in small(more) for word in ("--set", text)]
    shared = ["--cpus-per-trial", "1", "--root", str(root), "--name", "s"]
    return ["search", "--preset", "smoke", *flags, *shared, *more]


LR = ("--space", "optimizer.lr=log(1e-4, 1e-1)", "--no-prune")


def stored(root: Path) -> optuna.Study:
    return optuna.load_study(study_name="s", storage=f"sqlite:///{root / 'studies' / 's' / 'optuna.db'}")


@pytest.mark.slow
@pytest.mark.kills
@pytest.mark.processes
@pytest.mark.ray
def test_a_search_whose_driver_is_killed_goes_on(tmp_path: Path) -> None:
    driver = start(words(tmp_path, "--trials", "4", *LR), environment(tmp_path, STEP_PAUSE="0.1"))
    wait_until(lambda: len(steps(tmp_path)) >= 8)
    kill(driver)
    code, out = run(words(tmp_path, "--trials", "4", *LR), environment(tmp_path))
    assert code == 0, out
    study = stored(tmp_path)
    ended = tried(study)
    assert [t.state for t in ended] == [TrialState.COMPLETE] * 4
    lost = [t for t in study.trials if t.number not in {e.number for e in ended}]
    again = {t.user_attrs[AGAIN]: t.params for t in ended if AGAIN in t.user_attrs}
    assert lost and {t.number: t.params for t in lost} == again
    # What the lost trials had trained was taken up: no more than a checkpoint's interval was made twice by each.
    assert 4 * 18 <= len(steps(tmp_path)) <= 4 * 18 + 4 * len(lost)
    assert len(steps(tmp_path)) == 4 * 18 + repeated(tmp_path)
    assert len(list((tmp_path / "runs" / "by_hash").glob("*/result.json"))) == 4
    # A trial that was lost ended as one that is left alone.
    (first,) = [trial for trial in ended if trial.user_attrs.get(AGAIN) == lost[0].number]
    run_dir = tmp_path / "runs" / "by_hash" / first.user_attrs["pretrain_hash"]
    assert in_process(train_alone, read_config(run_dir / "config.yaml"), tmp_path / "alone") == 0
    assert_same_run(run_dir, tmp_path / "alone")
    assert "4 finished" in out and (tmp_path / "studies" / "s" / "best.yaml").is_file()
    table = csv.DictReader((tmp_path / "studies" / "s" / "trials.csv").read_text().splitlines())
    finished = [row for row in table if row["ended"] == "finished"]
    assert [float(row["knn_top1"]) for row in finished] == [trial.value for trial in ended]
    assert all(0 <= float(row["linear_top1"]) <= 100 for row in finished)
    code, out = run(words(tmp_path, "--trials", "4", *LR), environment(tmp_path))
    assert code == 0 and "4 of 4 trials done before" in out
    code, out = run(words(tmp_path, "--trials", "5", *LR, "--objective", "linear"), environment(tmp_path))
    assert code == 2 and "objective: there knn, requested linear" in out
    other_images = words(tmp_path, "--trials", "5", *LR, "--set", "drawing_seed=1")
    code, out = run(other_images, environment(tmp_path))
    assert code == 2 and "images: there " in out


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.ray
def test_trials_that_are_behind_or_collapsed_are_given_up_and_kept_as_pruned(tmp_path: Path) -> None:
    grid = ["--space", "predictor.depth=choice(4, 3, 2, 1)", "--sampler", "grid"]
    env = environment(tmp_path, STEP_PAUSE="0.1", LOOKS="4:40:0.5,3:30:0.5,2:20:0.5,1:90:0.001")
    code, out = run(words(tmp_path, *grid), env, timeout=240)
    assert code == 0, out
    trials = {trial.params["method.predictor.depth"]: trial for trial in tried(stored(tmp_path))}
    assert {depth: trials[depth].user_attrs["how"] for depth in (4, 2, 1)} == {
        4: "finished", 2: "pruned", 1: "collapsed",
    }  # fmt: skip
    assert [trials[depth].state for depth in (4, 2, 1)] == [
        TrialState.COMPLETE, TrialState.PRUNED, TrialState.PRUNED,
    ]  # fmt: skip
    assert trials[2].intermediate_values == {1: 20.0}
    # The terminal tells what each one tries, its figures on the way and how it ended.
    told = ("begins +predictor.depth 4", "epoch 1 +20.00 %", r"pruned +after \d+\.\d (?:s|min)",
            "finished .*best so far", r"\(4 of 4 done\)")  # fmt: skip
    for line in told:
        assert re.search(line, out), (line, out)
    # Those that were given up made fewer steps than a whole trial, and nobody holds their folders.
    made = [depth for _, _, _, depth in steps(tmp_path)]
    assert made.count("4") == 18 and made.count("2") < 18 and made.count("1") < 18
    for depth in (2, 1):
        assert Pool(tmp_path).folder(trials[depth].user_attrs["pretrain_hash"]).holder() is None


@pytest.mark.slow
@pytest.mark.kills
@pytest.mark.processes
@pytest.mark.ray
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
def test_a_search_stops_on_ctrl_c_and_on_a_schedulers_warning(number: signal.Signals, tmp_path: Path) -> None:
    driver = start(words(tmp_path, "--trials", "20", *LR), environment(tmp_path, STEP_PAUSE="0.1"))
    wait_until(lambda: len(steps(tmp_path)) >= 4)
    driver.send_signal(number)
    code, out = finish(driver)
    assert code == 75 and f"stopped ({number.name}); the same command resumes the search" in out, out
    assert {trial.user_attrs["how"] for trial in stored(tmp_path).trials if trial.state == TrialState.FAIL} == {
        "stopped"
    }


@pytest.mark.slow
@pytest.mark.kills
@pytest.mark.processes
@pytest.mark.ray
def test_a_point_whose_process_dies_is_given_up_and_a_space_of_three_is_three_trials(tmp_path: Path) -> None:
    depths = ["--space", "predictor.depth=choice(1, 2, 3)", "--no-prune", "--trials", "20", "--set", "epochs=1",
              "--set", "warmup_epochs=0"]  # fmt: skip
    code, out = run(words(tmp_path, *depths), environment(tmp_path, STEP_DIE_AT_DEPTH="2"), timeout=300)
    assert code == 0, out
    assert "the space has 3 points: 3 trials, not 20 (--trials)" in out
    assert "3 of 3 points of the space tried: there is nothing left to try" in out
    assert re.search(r"died +.*its process died 3 times; the point is not tried again", out)
    how = {trial.params["method.predictor.depth"]: trial.user_attrs["how"] for trial in tried(stored(tmp_path))}
    assert how == {1: "finished", 2: "died", 3: "finished"}
    assert sorted(depth for _, _, _, depth in steps(tmp_path)) == ["1"] * 6 + ["3"] * 6
