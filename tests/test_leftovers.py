"""A refused or failed command leaves nothing behind and earlier files unchanged."""

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import Any

import commands
import pytest
import yaml
from runs import SERVER
from searches import space
from studies import planned
from study_runs import words
from typer.testing import CliRunner

from cnnjepa.ablations.archive import archive_search
from cnnjepa.ablations.study_folder import StudyFolder, records_of
from cnnjepa.cli import study_run
from cnnjepa.cli.app import app
from cnnjepa.errors import RunError
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.study import Study
from cnnjepa.storage.locks import holder, locked
from cnnjepa.storage.whole_folder import whole_folder


def contents(root: Path) -> dict[str, bytes | None]:
    """Every path below `root`; None for a folder."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in sorted(root.rglob("*"))
    }


def refused(*arguments: str) -> ConfigError:
    """The refusal of a command line, as `main` gets it before it becomes exit code 2."""
    error = CliRunner().invoke(app, list(arguments)).exception
    assert isinstance(error, ConfigError), error
    return error


def a_search(root: Path) -> Path:
    folder = root / "studies" / "s"
    folder.mkdir(parents=True)
    (folder / "search.yaml").write_text(yaml.safe_dump(space().model_dump(mode="json")))
    (folder / "optuna.db").write_bytes(b"trials")
    return folder


SMALL_BENCHMARK = ("benchmark", "--preset", "demo", "--methods", "cnnjepa,byol")


@pytest.mark.parametrize("plan", [(), ("--plan",)])
@pytest.mark.parametrize("command", ["ablate", "benchmark"])
def test_a_study_under_the_name_of_a_search_is_refused_before_anything_is_written(
    command: str, plan: tuple[str, ...], tmp_path: Path
) -> None:
    folder = a_search(tmp_path)
    before = contents(tmp_path)
    asked = words(tmp_path) if command == "ablate" else [*SMALL_BENCHMARK, "--root", str(tmp_path)]
    error = refused(*asked, "--name", "s", *plan)
    assert str(error) == f"{folder} holds a search; give this study another --name"
    assert contents(tmp_path) == before


def test_a_study_that_another_driver_wrote_meanwhile_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = StudyFolder(tmp_path, "s")
    there: dict[str, bytes] = {}

    def another_driver(*_: object) -> None:
        """While the first measures its speed."""
        study = Study(name="s", preset="smoke", axes={"predictor.depth": (3, 4)})
        other.write(study, records_of(planned(study), "depth=3", 1))
        there.update((path.name, path.read_bytes()) for path in other.path.glob("*.*") if path.is_file())

    monkeypatch.setattr(study_run, "_announce", another_driver)
    error = refused(*words(tmp_path), "--executor", "local", "--name", "s")
    assert "studies/s holds another study. They differ in" in str(error)
    assert "set.probe.floors: there (none), requested False" in str(error)
    assert set(there) >= {"study.yaml", "trials.json"}
    assert {name: (other.path / name).read_bytes() for name in there} == there
    assert not (tmp_path / "runs").exists()


def test_a_search_under_the_name_of_a_study_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "studies" / "s"
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text("name: s\n")
    before = contents(tmp_path)
    lr = ("--preset", "smoke", "--space", "optimizer.lr=log(1e-4,1e-1)")
    error = refused("search", *lr, "--name", "s", "--root", str(tmp_path))
    assert str(error) == f"{folder} holds a study; give this search another --name"
    assert contents(tmp_path) == before


NOT_RESUMED = ("--resume", "--checkpoint", "nowhere.pt")


@pytest.mark.processes
@pytest.mark.parametrize(
    "wrong",
    [
        ("train", "--preset", "smoke", "--data", "nowhere"),
        ("train", "--preset", "smoke", *NOT_RESUMED),
        ("search", "--preset", "smoke", "--space", "predictor.depth=choice(1,2)", "--data", "nowhere"),
        ("search", "--preset", "smoke", "--space", "predictor.depth=choice(1,2)", "--storage", "nosuchdb://x"),
        ("search", "--preset", "smoke", "--space", "predictor.depth=choice(1,2)", "--cpus-per-trial", "9999"),
        ("ablate", "predictor", "--preset", "smoke", "--depths", "1,2", "--data", "nowhere"),
        ("ablate", "predictor", "--preset", "smoke", "--depths", "1,2", "--cpus-per-trial", "9999"),
    ],
)
def test_what_is_refused_leaves_no_folder(wrong: tuple[str, ...], tmp_path: Path) -> None:
    # In processes of their own: another test may have imported Ray with other settings.
    assert commands.cnnjepa(*wrong, cwd=tmp_path).returncode == 2
    assert contents(tmp_path) == {}


def test_a_refused_run_leaves_an_empty_folder_empty(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    refused("train", "--preset", "smoke", *NOT_RESUMED, "--out", str(tmp_path / "run"))
    assert contents(tmp_path) == {"run": None}


def test_a_search_that_cannot_be_archived_leaves_no_folder(tmp_path: Path) -> None:
    folder = a_search(tmp_path / "root")
    (folder / "trials.csv").write_text("trial\n")
    asked = space(space={"data.path": ["/a", "/b"]}, set={}).model_dump(mode="json")
    (folder / "search.yaml").write_text(yaml.safe_dump(asked))
    with pytest.raises(ConfigError, match=r"searches over data\.path"):
        archive_search(tmp_path / "root", "s", tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


# --- The lock that makes folders -----------------------------------------------------------------------------------


def test_a_locked_folder_is_removed_only_when_nothing_came_into_it(tmp_path: Path) -> None:
    with locked(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / ".lock").is_file()
    assert contents(tmp_path) == {}
    with pytest.raises(RuntimeError), locked(tmp_path / "a" / "b"):
        raise RuntimeError
    assert contents(tmp_path) == {}
    with locked(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "config.yaml").touch()
    assert sorted(contents(tmp_path)) == ["a", "a/b", "a/b/.lock", "a/b/config.yaml"]


def _count(folder: Path, rounds: int) -> None:
    """Adds 1 to a number next to the folder, holding the folder, which every holder leaves unused."""
    number = folder.parent / "number"
    for _ in range(rounds):
        with locked(folder, patience=60):
            now = int(number.read_text())
            time.sleep(0.001)
            number.write_text(str(now + 1))


@pytest.mark.kills
@pytest.mark.processes
def test_a_lock_file_that_goes_away_never_lets_two_in(tmp_path: Path) -> None:
    (tmp_path / "number").write_text("0")
    processes = [SERVER.Process(target=_count, args=(tmp_path / "folder", 25)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    assert (tmp_path / "number").read_text() == "100" and not (tmp_path / "folder" / ".lock").exists()


def test_whoever_waits_for_an_unused_folder_gets_one_that_others_see(tmp_path: Path) -> None:
    entered, seen = threading.Event(), list[str | None]()

    def wait() -> None:
        with locked(tmp_path / "run", patience=30):
            seen.append(holder(tmp_path / "run"))

    waiting = threading.Thread(target=wait)
    with locked(tmp_path / "run"):
        waiting.start()
        entered.wait(0.3)
    waiting.join(30)
    assert seen and seen[0] is not None and str(os.getpid()) in seen[0]


# --- Exports -------------------------------------------------------------------------------------------------------


def _export(folder: Path, fails: bool = False, **files: str) -> None:
    with whole_folder(folder, last="README.md") as aside:
        assert aside.parent.is_dir() and (not folder.exists() or aside != folder)
        for name, text in files.items():
            (aside / name.replace("_", ".")).write_text(text)
        if fails:
            raise RunError("other features")


def test_a_failed_export_leaves_nothing_and_blocks_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "export" / "timm"
    with contextlib.suppress(RunError):
        _export(folder, fails=True, encoder_pt="half")
    assert contents(tmp_path) == {}
    _export(folder, encoder_pt="whole", README_md="card")
    assert contents(folder) == {"encoder.pt": b"whole", "README.md": b"card"}
    plain = tmp_path / "plain"
    plain.mkdir()
    assert folder.stat().st_mode == plain.stat().st_mode  # readable to others as any folder is


def test_an_export_over_an_earlier_one_replaces_its_files_and_keeps_others(tmp_path: Path) -> None:
    _export(tmp_path / "e", encoder_pt="1", README_md="1")
    (tmp_path / "e" / ".git").mkdir()
    with contextlib.suppress(RunError):
        _export(tmp_path / "e", fails=True, encoder_pt="2", README_md="2")
    assert contents(tmp_path / "e") == {".git": None, "encoder.pt": b"1", "README.md": b"1"}
    _export(tmp_path / "e", encoder_pt="2", README_md="2")
    assert contents(tmp_path / "e") == {".git": None, "encoder.pt": b"2", "README.md": b"2"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e"]


@pytest.mark.medium
def test_features_that_differ_leave_no_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from runs import small_config

    from cnnjepa.export import FORMATS, export_run
    from cnnjepa.export.exported_encoder import ExportedEncoder
    from cnnjepa.training.pretrain import pretrain

    quick = ("epochs=1", "warmup_epochs=0", "floors=false", "linear_epochs=1")
    pretrain(small_config(*quick), tmp_path / "run")
    before = contents(tmp_path)

    def other(exported: ExportedEncoder, folder: Path) -> tuple[Any, str]:
        (folder / "encoder.pt").write_bytes(b"weights")
        return exported.features() * 1.001, ""

    monkeypatch.setitem(FORMATS, "timm", other)
    with pytest.raises(RunError, match="gives different features in timm"):
        export_run(tmp_path / "run", "timm")
    assert contents(tmp_path) == before
    folder, error = export_run(tmp_path / "run", "safetensors")  # the same --out is free
    assert error < 1e-5 and sorted(path.name for path in folder.iterdir()) == [
        "README.md", "encoder.json", "encoder.safetensors",
    ]  # fmt: skip
