"""Objectives of searches: figures of results and online probes, directions, tables."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from optuna.study import StudyDirection
from rich.console import Console
from searches import ask, opened, space
from studies import figures

from cnnjepa.ablations.search.findings import completed, write_best, write_trials
from cnnjepa.ablations.search.objective import objective_of
from cnnjepa.ablations.search.proposals import News
from cnnjepa.ablations.search.storage import HOW, open_study
from cnnjepa.ablations.study_folder import StudyFolder
from cnnjepa.cli.search_view import Course, show
from cnnjepa.schemas import Diagnostics, Probes, Selection, TrialResult

PROBE = {"knn_top1": 30.0, "rankme": 9.0, "lidar": 6.0, "alpha_req": 0.4, "heldout_loss": 0.3, "feature_std": 0.5}


def result(**more: Any) -> TrialResult:
    values: dict[str, Any] = {
        "pretrain_hash": "a", "probe_hash": "b", "method": "cnnjepa", "encoder": "e", "dataset": "d", "seed": 0,
        "status": "finished", "metrics": {"balanced": 41.0},
        "selection": Selection(linear_top1=50.0, linear_lr=0.1, linear_epoch=1, knn_top1=40.0, knn_k=5),
        "diagnostics": Diagnostics(
            rankme=10.0, feature_std=0.4, feature_dim=32, lidar=7.0, alpha_req=1.25, heldout_loss=0.25
        ),
    }  # fmt: skip
    return TrialResult(**{**values, **more})


@pytest.mark.parametrize(
    ("name", "final", "online", "minimised"),
    [
        ("knn", 40.0, 30.0, False), ("linear", 50.0, 30.0, False), ("rankme", 10.0, 9.0, False),
        ("lidar", 7.0, 6.0, False), ("alpha_req", 0.25, 0.6, True), ("loss", 0.25, 0.3, True),
        ("metric:balanced", 41.0, 30.0, False),
    ],
)  # fmt: skip
def test_every_objective_is_its_figure(name: str, final: float, online: float, minimised: bool) -> None:
    objective = objective_of(space(objective=name))
    assert objective.final(result()) == pytest.approx(final)
    assert objective.online(PROBE) == pytest.approx(online)
    assert objective.minimised == minimised and objective.better(1.0, 2.0) == minimised
    assert objective.needs_labels == (name not in ("rankme", "lidar", "alpha_req", "loss"))


def test_an_objective_that_a_result_lacks_is_none() -> None:
    old = result(
        probes=None, selection=None, metrics={}, diagnostics=Diagnostics(rankme=2, feature_std=1, feature_dim=4)
    )
    for name in ("knn", "linear", "lidar", "alpha_req", "loss", "metric:balanced"):
        assert objective_of(space(objective=name)).final(old) is None
        assert objective_of(space(objective=name)).online({"rankme": 2.0}) is None
    assert objective_of(space(objective="rankme")).final(old) == 2


def test_a_metric_of_several_sets_is_that_of_the_first() -> None:
    probes = {"a": Probes(held_out=figures(1, 2)), "b": Probes(held_out=figures(3, 4))}
    both = result(probes=probes, selection=None, metrics={"a: balanced": 1.0, "b: balanced": 2.0})
    assert objective_of(space(objective="metric:balanced")).final(both) == 1.0


def test_the_lowest_loss_is_the_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = space(objective="loss")
    study = open_study(asked, opened(None, tmp_path / "storage"))
    assert study.direction == StudyDirection.MINIMIZE
    for value in (0.5, 0.2, 0.9):
        trial = ask(study, asked)
        trial.report(value + 1, 1)
        trial.set_user_attr(HOW, "finished")
        study.tell(trial, value)
    assert [trial.value for trial in completed(study)] == [0.2, 0.5, 0.9]
    best = write_best(study, asked, tmp_path)
    assert best is not None
    head = best.read_text(encoding="utf-8").splitlines()
    assert head[1] == "# held-out loss on validation images, without their labels: 0.2000, one seed."
    assert head[2] == "# Chosen as the best of many, so the figure is optimistic."
    assert f"lr: {completed(study)[0].params['optimizer.lr']}" in best.read_text(encoding="utf-8")
    folder = StudyFolder(tmp_path, "s")
    folder.path.mkdir(parents=True)
    rows = list(csv.DictReader(write_trials(study, asked, folder).read_text(encoding="utf-8").splitlines()))
    assert [row["held-out loss"] for row in rows] == ["0.5", "0.2", "0.9"]
    assert [row["heldout_loss epoch 1"] for row in rows] == ["1.5", "1.2", "1.9"]
    show(study, asked)
    shown = capsys.readouterr().out
    assert "held-out loss on validation images, without their labels" in shown
    assert shown.index("0.2000") < shown.index("0.5000") < shown.index("0.9000") and "top-1" not in shown


@pytest.mark.parametrize(("name", "best", "worse"), [("loss", 0.2, 0.3), ("lidar", 9.0, 8.0)])
def test_the_course_of_a_search_names_the_best_so_far(name: str, best: float, worse: float) -> None:
    console = Console(file=io.StringIO(), width=200)
    course = Course(console, 0, 2, objective_of(space(objective=name)))
    for number, value in enumerate((best, worse)):
        course(News(number, "finished", value, "", {}, True))
    first, second = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert "best so far" in first and "best so far" not in second and "%" not in first
