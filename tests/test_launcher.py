"""A launcher's variables: a launch is joined, what is left over from another is refused with one message."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs import small_config

from cnnjepa import launcher
from cnnjepa.schemas import ConfigError
from cnnjepa.training import distributed

PLACE = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*launcher.VARIABLES, *launcher._LAUNCHERS):
        monkeypatch.delenv(name, raising=False)


def given(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (0, 1, 0, 300.0)),
        ({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", **PLACE}, (0, 1, 0, 300.0)),
        (PLACE, (0, 1, 0, 300.0)),  # a site's profile may set these; alone they change nothing
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", **PLACE}, (1, 2, 1, 20.0)),
        ({"RANK": "1", "WORLD_SIZE": "2", **PLACE, "TORCHELASTIC_RUN_ID": "x"}, (1, 2, 0, 300.0)),
        ({"RANK": "1", "WORLD_SIZE": "2", **PLACE, "MASTER_ADDR": "node7"}, (1, 2, 0, 300.0)),
    ],
)
def test_a_launch_is_read(
    variables: dict[str, str], expected: tuple[int, int, int, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, **variables)
    assert launcher.launched() == expected


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 without RANK, MASTER_ADDR, MASTER_PORT: .* unset WORLD_SIZE;"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE='' is not a whole number: .* unset WORLD_SIZE;"),
        ({"RANK": "one"}, "RANK='one' is not a whole number"),
        ({"RANK": "1"}, r"RANK=1 of a run of one process \(WORLD_SIZE is not set\): .* unset RANK;"),
        ({"LOCAL_RANK": "3"}, "LOCAL_RANK=3 of a run of one process"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": ""}, "without MASTER_PORT"),
        ({"WORLD_SIZE": "2", "RANK": "2", **PLACE}, "RANK=2, WORLD_SIZE=2: a rank must be one of 0 to"),
        ({"WORLD_SIZE": "-1", "RANK": "0", **PLACE}, "RANK=0, WORLD_SIZE=-1: a rank must be one of 0 to"),
        ({"WORLD_SIZE": "2", "RANK": "0", **PLACE, "MASTER_PORT": "70000"}, "MASTER_PORT=70000 must be a port"),
    ],
)
def test_leftover_variables_are_refused_by_name(
    variables: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, **variables)
    with pytest.raises(ConfigError, match=says) as refusal:
        launcher.launched()
    assert "torchrun --nproc-per-node" in str(refusal.value)


@pytest.mark.parametrize("rank", ["0", "1"])
def test_processes_that_do_not_come_are_waited_for_shortly(rank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from test_distributed import free_port

    monkeypatch.setattr(launcher, "_JOIN_SECONDS_BY_HAND", 1.0)
    given(monkeypatch, RANK=rank, WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))
    begun = time.monotonic()
    with pytest.raises(ConfigError, match=rf"the 2 processes .* within 1 s .* this is RANK={rank} of WORLD_SIZE=2"):
        distributed.join(small_config().runtime)
    assert time.monotonic() - begun < 30


@pytest.mark.processes
def test_a_trial_of_one_process_is_alone_whatever_its_driver_was_started_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from study_runs import environment, results, run, words

    more = ["--executor", "local", "--depths", "1", "--set", "epochs=1", "--set", "warmup_epochs=0"]
    code, out = run(words(tmp_path, *more), environment(tmp_path, WORLD_SIZE="2", RANK="1", LOCAL_RANK="1"))
    assert code == 0, out
    assert [result["status"] for result in results(tmp_path).values()] == ["finished"]


@pytest.mark.processes
def test_train_refuses_before_torch_is_imported() -> None:
    code = "import sys; sys.argv = ['cnnjepa', 'train', '--preset', 'smoke']\nfrom cnnjepa.cli.main import main\n"
    code += "try: main()\nexcept SystemExit as left: print(left.code, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"RANK": "1", "PATH": ""})
    assert done.stdout == "2 False\n" and done.stderr.startswith("cnnjepa: RANK=1 of a run of one process"), done
