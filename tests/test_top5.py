"""Top-5 accuracies are shown where there are more than five classes: with fewer, every one is 100 %."""

from pathlib import Path

import pytest
from reports import comparison, table
from studies import result_of, write_run, write_study

from cnnjepa.ablations.report.build import build_report
from cnnjepa.ablations.report.tables.accuracy_table import accuracy_table
from cnnjepa.cli.summary import print_summary
from cnnjepa.schemas import Floors, ProbeFigures, Probes, TrialResult
from cnnjepa.schemas.study import Study

STUDY = Study(name="few", preset="smoke", axes={"predictor.depth": (1, 2)}, seeds=(0, 1))


def probes(top5: float) -> Probes:
    figures = ProbeFigures(linear_top1=60.0, linear_top5=top5, knn_top1=50.0, knn_top5=top5)
    return Probes(published=figures, held_out=figures)


def results(root: Path, top5: float) -> TrialResult:
    """The study's trials, all with the same top-5 accuracies; gives one of the results."""
    for trial in write_study(root, STUDY, lambda arm, seed: None):
        floors = Floors(untrained=probes(top5), pixels=probes(top5))
        result = result_of(trial, 60.0, 50.0, probes=probes(top5), floors=floors)
        write_run(root, trial, result)
    return result


@pytest.mark.medium
@pytest.mark.usefixtures("blank_pictures")
@pytest.mark.parametrize(("top5", "shown"), [(100.0, False), (99.5, True)])
def test_the_tables_of_a_report_have_top_5_only_where_it_says_something(
    top5: float, shown: bool, tmp_path: Path
) -> None:
    results(tmp_path, top5)
    build_report(tmp_path, [])
    for folder, name in (
        ("studies/few/report", "few_accuracy_held_out"), ("report", "main_synthetic-32_published")
    ):  # fmt: skip
        rows = table(tmp_path / folder, name)
        found = {key: row[key] for row in rows for key in row if key.endswith("top5_mean")}
        assert found == ({"linear_top5_mean": "99.5", "knn_top5_mean": "99.5"} if shown else {})
        assert {row["linear_top1_mean"] for row in rows} == {"60.0"}


def test_a_study_without_figures_keeps_the_columns(tmp_path: Path) -> None:
    write_study(tmp_path, STUDY, lambda arm, seed: None)
    names = [column.key for column in accuracy_table(comparison(tmp_path, "few"), "t").columns]
    assert "linear_top5" in names and "knn_top5" in names


@pytest.mark.parametrize(("top5", "shown"), [(100.0, False), (99.5, True)])
def test_the_summary_of_a_run_has_top_5_only_where_it_says_something(
    top5: float, shown: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_summary(results(tmp_path, top5), tmp_path / "run")
    out = capsys.readouterr().out
    assert ("top-5" in out) == ("99.5" in out) == shown
    assert "top-1" in out and "60.0" in out and "50.0" in out and "100.0" not in out
