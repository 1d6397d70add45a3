"""A search and its storage, without trials: proposals, what resumes, and what is written at its end."""

import csv
import io
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.trial import TrialState
from pydantic import ValidationError
from rich.console import Console
from searches import GRIDS, ask, opened, space
from typer.testing import CliRunner

from cnnjepa.ablations.archive import archive_search
from cnnjepa.ablations.search.findings import completed, draw, importances, importances_need, write_best, write_trials
from cnnjepa.ablations.search.points import check_search
from cnnjepa.ablations.search.record import refuse_other_search
from cnnjepa.ablations.search.storage import AGAIN, choices_of, open_study, space_points, tried
from cnnjepa.ablations.search.values import by_value
from cnnjepa.ablations.study_folder import StudyFolder
from cnnjepa.cli import search_run
from cnnjepa.cli.app import app
from cnnjepa.cli.study_options import ClusterOptions
from cnnjepa.schemas import ConfigError, load_config
from cnnjepa.schemas.space import SearchSpace


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Any]:
    yield opened(f"journal:{tmp_path / 'journal.log'}", tmp_path)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_search_that_goes_on_does_not_propose_its_first_points_anew(sampler: str, storage: Any) -> None:
    asked = space(sampler=sampler)
    seen = set()
    for _ in range(4):  # four processes, three trials each
        study = open_study(asked, storage)
        for _ in range(3):
            trial = ask(study, asked)
            seen.add(trial.params["optimizer.lr"])
            study.tell(trial, 1.0)
    assert len(seen) == 12 and len(tried(study)) == 12


def test_the_same_seed_begins_with_the_same_points(tmp_path: Path) -> None:
    first = []
    for name in ("a", "b"):
        asked = space(name=name)
        first.append(ask(open_study(asked, opened(None, tmp_path / name)), asked).params)
    assert first[0] == first[1]


def test_points_that_no_trial_could_have_are_refused_or_said(tmp_path: Path) -> None:
    settings: Any = {"min_keep": "int(3, 5)", "strategy": ["mixed", "random"]}
    with pytest.raises(
        ConfigError, match=r"first, point 0: method.masking.min_keep: no such field of strategy 'random'"
    ):
        check_search(space(space=settings, first=[{"min_keep": 4, "strategy": "random"}]), None)
    with pytest.raises(ValidationError, match=r"sampler grid proposes nothing, so point 0 of `first` must have every"):
        space(space={"grid": GRIDS, "depth": "int(1, 2)"}, sampler="grid", first=[{"depth": 1}])
    few = ClusterOptions(root=tmp_path)
    with pytest.raises(ConfigError, match=r"--trials 1 is fewer than the 2 points of `first`"):
        search_run.run(space(space={"depth": "int(1, 3)"}, first=[{"depth": 1}, {"depth": 2}]), few, None, 1, None)
    grid = {"masking.min_keep": [4, 5], "masking.strategy": ["mixed", "random"]}
    console = Console(file=io.StringIO(), width=200)
    assert search_run.of_the_space(console, space(space=grid, sampler="grid"), 3, None) == 3
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "warning: 2 of 4 combinations are no configs" in said and "a part of the grid: 3 of 4" in said


def test_a_trial_whose_driver_died_is_marked_and_tried_again_first(storage: Any) -> None:
    asked = space()
    study = open_study(asked, storage)
    lost = ask(study, asked)
    again = open_study(asked, storage)
    assert again.trials[0].state == TrialState.FAIL and tried(again) == []
    trial = ask(again, asked)
    assert trial.params == lost.params and trial.user_attrs[AGAIN] == 0
    again.tell(trial, 3.0)
    assert [t.number for t in tried(again)] == [1]


def test_a_point_that_a_driver_took_up_and_left_is_tried_again(storage: Any) -> None:
    asked = space(space={"lr": "log(1e-3, 1e-1)", "depth": "int(1, 3)"}, first=[{"lr": 0.01, "depth": 2}])
    open_study(asked, storage).ask()  # and dies before it has its settings
    assert ask(open_study(asked, storage), asked).params == {"optimizer.lr": 0.01, "method.predictor.depth": 2}


def test_a_grid_is_every_combination_once_however_often_it_is_begun(storage: Any) -> None:
    asked = space(space={"predictor.depth": "int(1, 2)", "masking.scale": [[0.1, 0.2], [0.15, 0.2]]}, sampler="grid")
    seen = []
    for _ in range(2):
        study = open_study(asked, storage)
        for _ in range(2):
            trial = ask(study, asked)
            seen.append(choices_of(trial.params, asked))
            study.tell(trial, 1.0)
    wanted = [(depth, scale) for depth in (1, 2) for scale in ([0.1, 0.2], [0.15, 0.2])]
    assert sorted((c["predictor.depth"], list(c["masking.scale"])) for c in seen) == wanted
    assert len(space_points(asked)) == 4


def test_first_points_are_tried_first_and_once_however_often_it_is_begun(storage: Any) -> None:
    points = [{"grid": "4x4", "masking.scale": [0.15, 0.2], "lr": 0.002}, {"grid": "8x8"}]
    asked = space(
        space={"lr": "log(1e-3, 1e-1)", "grid": GRIDS, "masking.scale": [[0.1, 0.2], [0.15, 0.2]]}, first=points
    )
    assert SearchSpace.model_validate(asked.model_dump(mode="json")) == asked
    for _ in range(2):
        study = open_study(asked, storage)
        study.tell(ask(study, asked), 2.0)
    open_study(asked, storage)
    assert not study.get_trials(states=(TrialState.WAITING,))
    study.tell(ask(study, asked), 5.0)
    first, second, _ = (choices_of(trial.params, asked) for trial in study.get_trials())
    assert first == points[0] and second["grid"] == "8x8"


def test_what_each_value_came_to(storage: Any) -> None:
    had = [("4x4", 0.002, 2, 3.0), ("8x8", 0.009, 1, 5.0), ("4x4", 0.01, 2, 4.0)]
    points = [{"grid": grid, "lr": lr, "depth": depth} for grid, lr, depth, _ in had]
    asked = space(space={"grid": GRIDS, "lr": "log(1e-3, 1e-1)", "depth": "int(1, 3)"}, first=points)
    study = open_study(asked, storage)
    for *_, figure in had:
        study.tell(ask(study, asked), figure)
    study.tell(ask(study, asked), state=TrialState.PRUNED)
    assert [(part.setting, part.value, part.figures, part.mean) for part in by_value(study, asked)] == [
        ("grid", "8x8", (5.0,), 5.0), ("grid", "4x4", (4.0, 3.0), 3.5),
        ("lr", (0.001, pytest.approx(0.01)), (5.0, 3.0), 4.0), ("lr", (pytest.approx(0.01), 0.1), (4.0,), 4.0),
        ("depth", 1, (5.0,), 5.0), ("depth", 2, (4.0, 3.0), 3.5),
    ]  # fmt: skip


def test_the_table_of_trials_is_archived_without_places(storage: Any, tmp_path: Path) -> None:
    points = [{"grid": "4x4", "lr": 0.002}, {"grid": "8x8", "lr": 0.009}]
    asked = space(set={"data.path": "/photos"}, space={"grid": GRIDS, "lr": "log(1e-3, 1e-1)"}, first=points)
    study = open_study(asked, storage)
    finished, pruned, _at_work = (ask(study, asked) for _ in range(3))
    finished.report(2.5, 1)
    pruned.report(1.5, 1)
    finished.set_user_attr("pretrain_hash", "abc")
    for trial, how in ((finished, "finished"), (pruned, "pruned")):
        trial.set_user_attr("how", how)
    study.tell(finished, 3.5)
    study.tell(pruned, state=TrialState.PRUNED)
    folder = StudyFolder(tmp_path, "s").path
    folder.mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"has no trials\.csv"):
        (folder / "search.yaml").write_text(yaml.safe_dump(asked.model_dump(mode="json")))
        archive_search(tmp_path, "s", tmp_path / "kept")
    write_trials(study, asked, StudyFolder(tmp_path, "s"))
    with pytest.raises(ConfigError, match="is the root itself"):
        archive_search(tmp_path, "s", tmp_path)
    assert archive_search(tmp_path, "s", tmp_path / "kept") and not archive_search(tmp_path, "other", tmp_path / "kept")
    said = CliRunner().invoke(app, ["archive", "s", "--root", str(tmp_path), "--to", str(tmp_path / "kept")])
    assert said.exit_code == 0 and "s: a search's settings" in said.stdout and "report" not in said.stdout
    kept = StudyFolder(tmp_path / "kept", "s").path
    assert (kept / "trials.csv").read_text().splitlines() == [
        "trial,ended,grid,lr,knn_top1 epoch 1,linear_top1,knn_top1,run", "0,finished,4x4,0.002,2.5,,,abc",
        "1,pruned,8x8,0.009,1.5,,,",
    ]  # fmt: skip
    written = yaml.safe_load((kept / "search.yaml").read_text())
    assert written["set"] == {} and written["space"]["grid"] == GRIDS


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([{}], r"point 0 is empty; give at least one setting"),
        ([{"lr": 0.01}, {"depth": 2}], r"point 1: 'depth' is not searched; searched are lr, grid"),
        ([{"lr": 1}], r"point 0: 1 is not in log\(0.001, 0.1\)"),
        ([{"lr": "quick"}], r"point 0: 'quick' is not a number; it must be in log\(0.001, 0.1\)"),
        ([{"grid": "2x2"}], r"point 0: '2x2' is not valid; must be one of 8x8, 4x4"),
        ([{"lr": 0.01}, {"lr": 1e-2}], r"point 1 is there twice"),
        ([{"lr": "1e-2"}], r"point 0: '1e-2' is not a number; it must be in log\(0.001, 0.1\)"),
    ],
)
def test_first_points_outside_the_space_are_named(points: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        space(space={"lr": "log(1e-3, 1e-1)", "grid": GRIDS}, first=points)


def test_a_search_of_before_a_field_existed_is_gone_on_with(tmp_path: Path) -> None:
    asked = space().model_dump(mode="json")
    folder = StudyFolder(tmp_path, "s")
    folder.path.mkdir(parents=True)
    (folder.path / "search.yaml").write_text(yaml.safe_dump({k: v for k, v in asked.items() if k != "first"}))
    refuse_other_search(folder, asked)
    with pytest.raises(ConfigError, match=r"first: there \[\], requested \[\{'optimizer.lr': 0.01\}\]"):
        refuse_other_search(folder, {**asked, "first": [{"optimizer.lr": 0.01}]})
    (folder.path / "search.yaml").write_text("name: s")
    with pytest.raises(ConfigError, match=r"search\.yaml cannot be read .*; give another --name"):
        refuse_other_search(folder, asked)


def test_arms_in_another_order_are_another_search(tmp_path: Path) -> None:
    asked, turned = (
        space(space={"grid": grids}).model_dump(mode="json") for grids in (GRIDS, dict([*GRIDS.items()][::-1]))
    )
    folder = StudyFolder(tmp_path, "s")
    folder.path.mkdir(parents=True)
    (folder.path / "search.yaml").write_text(yaml.safe_dump(asked, sort_keys=False))
    refuse_other_search(folder, asked)
    with pytest.raises(ConfigError, match=r"They differ in\n  space.grid: there"):
        refuse_other_search(folder, turned)


def test_the_best_settings_become_a_preset_file(storage: Any, tmp_path: Path) -> None:
    asked = space(
        set={"masking.strategy": "random"},
        space={
            "optimizer.lr": "log(1e-4, 1e-1)",
            "masking.ratio": "uniform(0.4, 0.6)",
            "predictor.depth": "int(1, 3)",
            "grid": {"8x8": {"stem": "small"}, "4x4": {"stem": "half", "image_size": 32}},
        },
    )
    study = open_study(asked, storage)
    assert write_best(study, asked, tmp_path) is None and importances(study) is None
    for value in (1.0, 5.0, 3.0, 2.0, 4.0):
        study.tell(ask(study, asked), value)
    path = write_best(study, asked, tmp_path)
    best = completed(study)[0]
    assert best.value == 5.0 and path is not None
    images = tmp_path / "my photos"
    write_best(study, asked, tmp_path, images)
    used = next(line for line in path.read_text().splitlines() if line.startswith("# Use: "))
    assert shlex.split(used[7:]) == ["cnnjepa", "train", "--config", str(path), "--data", str(images)]
    config = load_config(file=path)
    assert config.optimizer.lr == best.params["optimizer.lr"]
    assert config.method.masking.strategy == "random" and config.runtime.epochs == load_config("smoke").runtime.epochs
    assert config.method.masking.ratio == best.params["method.masking.ratio"]
    assert config.encoder.stem == {"8x8": "small", "4x4": "half"}[best.params["grid"]]
    assert config.probe == load_config("smoke").probe
    assert importances(study) is None and importances_need(study) == 15  # the best tenth of five is no sample
    for value in range(15):
        study.tell(ask(study, asked), float(value))
    found = importances(study)
    assert importances_need(study) == 0 and found is not None and sum(found.values()) == pytest.approx(1)


def test_names_of_arms_reach_the_table_and_the_pictures_as_text(tmp_path: Path) -> None:
    arms = {name: {"predictor.depth": n + 1} for n, name in enumerate(["=1+1", "-x", "[/x]", "$a_^$"])}
    asked = space(space={"arm x": arms, "optimizer.lr": "log(1e-4, 1e-1)"})
    folder = StudyFolder(tmp_path, "s")
    folder.path.mkdir(parents=True)
    study = open_study(asked, optuna.storages.InMemoryStorage())
    for number in range(24):
        study.tell(ask(study, asked), float(number % 7))
    rows = list(csv.reader(write_trials(study, asked, folder).read_text(encoding="utf-8").splitlines()))
    assert rows[0][2] == "arm x" and {row[2] for row in rows[1:]} <= {"'=1+1", "'-x", "[/x]", "$a_^$"}
    assert {path.name for path in draw(study, folder.path)} == {"history.png", "importances.png"}
