"""`make gpu-check`: stages in order, a total time, outcomes on disk at every moment; and what needs a GPU says so."""

import importlib.util
import io
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from commands import run_file

from cnnjepa.methods import build_method
from cnnjepa.schemas import ConfigError, load_config
from cnnjepa.tensor_ops.tf32 import tf32
from cnnjepa.training.distributed import Processes, join, pick_device
from cnnjepa.training.graphed_step import graphed_step
from cnnjepa.training.pretrain import pretrain

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def checking(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_check", FOLDER / "gpu_check.py")
    assert spec and spec.loader
    loaded = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_check", loaded)
    spec.loader.exec_module(loaded)
    return loaded


def test_stages_share_a_total_time_and_none_stops_the_next(checking: ModuleType, tmp_path: Path) -> None:
    now, limits = [0.0], {}
    takes = {"good": (20.0, 0), "broken": (5.0, 3), "endless": (1000.0, 0), "last": (40.0, 0), "late": (1.0, 0)}

    def runner(stage: object, limit: float, log: Path) -> tuple[int | None, str]:
        name = stage.name  # type: ignore[attr-defined]
        limits[name] = limit
        seconds, code = takes[name]
        now[0] += min(seconds, limit)
        if name == "broken":  # the stages before it are on disk while it runs
            assert [each["name"] for each in json.loads((tmp_path / "check.json").read_text())] == ["good"]
        return (None, "") if seconds > limit else (code, "the last line")

    todo = [checking.Stage(name, "", (), 60.0) for name in takes]
    outcomes = checking.check(todo, 120.0, tmp_path, runner, lambda: now[0], io.StringIO())
    found = {outcome.name: (outcome.status, outcome.seconds) for outcome in outcomes}
    assert found == {
        "good": ("done", 20.0), "broken": ("failed", 5.0), "endless": ("too slow", 60.0), "last": ("too slow", 35.0),
        "late": ("no time left", 0.0),
    }  # fmt: skip
    assert limits == {"good": 60.0, "broken": 60.0, "endless": 60.0, "last": 35.0}
    assert [each["status"] for each in json.loads((tmp_path / "check.json").read_text())] == [
        status for status, _ in found.values()
    ]


@pytest.mark.processes
def test_a_stage_over_its_limit_is_ended_with_its_children(checking: ModuleType, tmp_path: Path) -> None:
    child = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    stage = checking.Stage("slow", "", ("-c", child + "print('begun', flush=True); time.sleep(60)"), 2.0)
    (outcome,) = checking.check([stage], 60.0, tmp_path, to=io.StringIO())
    assert (outcome.status, outcome.last_line) == ("too slow", "begun") and outcome.seconds < 30


@pytest.mark.processes
@pytest.mark.slow
def test_it_runs_on_a_cpu_at_its_smallest(tmp_path: Path) -> None:
    done = run_file(
        FOLDER / "gpu_check.py", FOLDER.parent, CUDA_VISIBLE_DEVICES="",
        arguments=("--device", "cpu", "--tiny", "--minutes", "5", "--stages", "encoder,step", "--out", str(tmp_path)),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert [each["status"] for each in json.loads((tmp_path / "check.json").read_text())] == ["done", "done"]
    assert "packed, 0.52 visible" in done.stdout and "step / supervised step" in done.stdout


def test_an_unknown_stage_is_named(checking: ModuleType, monkeypatch: pytest.MonkeyPatch,
                                   capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--stages", "steps"])
    with pytest.raises(SystemExit) as end:
        checking.main()
    assert end.value.code == 2 and "must be of tests, graph_tests, encoder" in capsys.readouterr().err


def test_cuda_graphs_are_refused_with_every_reason() -> None:
    config = load_config("smoke", overrides=["device=cpu", "cuda_graphs=true", "accumulation=2", "backend=masked"])
    with pytest.raises(ConfigError) as refusal:
        graphed_step(build_method(config), config, Processes(0, 1, torch.device("cpu")))
    for reason in ("the device is not a GPU", "runtime.accumulation is not 1", "not a packed ResNet", "use false"):
        assert reason in str(refusal.value)


def test_a_run_that_cannot_have_cuda_graphs_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the device is not a GPU"):
        pretrain(load_config("smoke", overrides=["device=cpu", "cuda_graphs=true"]), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").rglob("*") if path.name != ".lock"] == []


def test_tf32_is_refused_without_a_gpu() -> None:
    with pytest.raises(ConfigError, match=r"runtime.precision=tf32 is a mode of GPUs"):
        join(load_config("smoke", overrides=["device=cpu", "precision=tf32"]).runtime)


def test_tf32_is_allowed_in_both_kinds_of_products_or_in_none() -> None:
    backends = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [backend.allow_tf32 for backend in backends]
    for allowed in (True, False):
        with tf32(allowed):
            assert [backend.allow_tf32 for backend in backends] == [allowed, allowed]
    assert [backend.allow_tf32 for backend in backends] == before


def test_processes_share_a_gpu_only_if_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(ConfigError, match="process 3 has no GPU of its own; there are 2"):
        pick_device("cuda", 3)
    monkeypatch.setenv("CNNJEPA_SHARE_GPUS", "1")
    assert pick_device("cuda", 3) == torch.device("cuda", 1)
