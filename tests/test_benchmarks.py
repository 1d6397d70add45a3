"""Every benchmark runs in its smallest mode and says its figures in the common form; no speed is asserted."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from commands import Done, run_file

FOLDER = Path(__file__).parents[1] / "benchmarks"
# Those that speak the common form, but the one that runs the others.
SCRIPTS = sorted(
    path.stem
    for path in FOLDER.glob("*.py")
    if "add_options(parser)" in path.read_text() and path.stem not in ("all", "gpu_graphs")  # which needs a GPU
)
FURTHER = {
    "augmentation": ["--batch", "16", "--batches", "2", "--size", "32"],
    "gpu_encoder": ["--device", "cpu"],
    "gpu_step": ["--device", "cpu", "--arch", "resnet18", "--batch", "4", "--image-size", "64", "--workers", "0"],
    "scaling": ["--cpus", "1"],
}


def run(script: str, *words: str) -> Done:
    return run_file(FOLDER / f"{script}.py", FOLDER.parent, arguments=words)


def module(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec and spec.loader
    loaded = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, loaded)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_every_benchmark_runs_and_writes_its_figures(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run(script, "--tiny", "--out", str(tmp_path), *FURTHER.get(script, []))
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / f"{script}.json").read_text())
    assert (found["script"], found["mode"]) == (script, "tiny")
    assert found["figures"] and {"torch", "cpu", "threads", "commit"} <= found["environment"].keys()
    figures = module("figures", monkeypatch)
    for figure in found["figures"]:
        assert json.loads(json.dumps(figures.Figure.of_json(figure).as_json())) == figure
        assert figure["name"] in done.stdout


@pytest.mark.slow
@pytest.mark.processes
def test_all_gathers_one_table_and_fails_only_when_a_script_does(tmp_path: Path) -> None:
    done = run("all", "--tiny", "--only", "masks", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "masks, random" in done.stdout and "≤ 2" in done.stdout
    assert list(json.loads((tmp_path / "all.json").read_text())) == ["masks"]
    assert run("all", "--tiny", "--only", "mask", "--out", str(tmp_path)).returncode == 2


@pytest.mark.slow
@pytest.mark.processes
def test_the_benchmark_of_the_report_times_a_small_one() -> None:
    done = run("report", "--arms", "2", "--seeds", "2")
    assert done.returncode == 0, done.stderr
    assert "4 trials" in done.stdout


@pytest.mark.slow
@pytest.mark.processes
def test_the_benchmark_of_large_indexes_opens_a_small_one() -> None:
    done = run("large_index", "--images", "70000", "--loaded", "200")
    assert done.returncode == 0, done.stderr
    assert "for 69,800 training images of 21,841 classes" in done.stdout
    assert "a shard that has changed: the index is not used" in done.stdout


def test_a_failing_script_is_named_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                       capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.syspath_prepend(str(FOLDER))
    module("figures", monkeypatch)
    gathering = module("all", monkeypatch)
    (tmp_path / "broken.py").write_text("raise SystemExit('no such GEMM')")
    monkeypatch.setattr(gathering, "HERE", tmp_path)
    monkeypatch.setattr(gathering, "SCRIPTS", ("broken",))
    monkeypatch.setattr(sys, "argv", ["all.py", "--tiny", "--only", "broken", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as end:
        gathering.main()
    assert end.value.code == 1
    assert "no such GEMM" in capsys.readouterr().out


@pytest.mark.processes
def test_figures_of_the_gpu_benchmark_outlive_a_loader_that_fails(tmp_path: Path) -> None:
    done = run("gpu_step", "--tiny", "--out", str(tmp_path), *FURTHER["gpu_step"], "--data", str(tmp_path / "gone"))
    assert done.returncode != 0 and "gone does not exist" in done.stderr
    told = [figure["name"] for figure in json.loads((tmp_path / "gpu_step.json").read_text())["figures"]]
    assert "GEMM rate" in told and "batch 4: step / supervised step" in told


def test_figures_know_whether_they_meet_their_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = module("figures", monkeypatch)
    ratio = figures.ratio("step / stock", [2.0, 3.0, 4.0], [2.0, 2.0, 2.0], target=1.5, direction="at_most")
    assert (ratio.measured, ratio.spread, ratio.n, ratio.ok) == (1.5, (1.0, 2.0), 3, True)
    assert figures.Figure("rate", 1.4, target=1.5, direction="at_least").ok is False
    assert figures.Figure("told", 1.4).ok is None
    assert [figures.number(value) for value in (float("nan"), float("inf"), 1234.5)] == ["nan", "inf", "1,234"]
    with pytest.raises(ValueError, match="needs a direction"):
        figures.Figure("rate", 1.0, target=2.0)


@pytest.mark.processes
def test_the_gpu_benchmark_says_when_there_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = run("gpu_step", "--tiny", "--out", str(tmp_path))
    assert done.returncode == 2
    assert "no usable CUDA GPU" in done.stderr and "--device cpu" in done.stderr
