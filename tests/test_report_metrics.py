"""The table of probe metrics in a study's report."""

import io
from pathlib import Path
from statistics import stdev

import pytest
from rich.console import Console
from studies import planned, result_of, write_run, write_study

from cnnjepa.ablations.pool import Pool
from cnnjepa.ablations.report.reading import read_study
from cnnjepa.ablations.report.tables.metrics_table import metrics_table
from cnnjepa.ablations.report.tables.runs_table import runs_table
from cnnjepa.ablations.study_folder import StudyFolder
from cnnjepa.cli.metric_tables import metrics_of_study
from cnnjepa.schemas import Floors
from cnnjepa.schemas.study import Study

DEPTHS = Study(name="depths", preset="smoke", axes={"predictor.depth": (1, 2)}, seeds=(0, 1, 2))


def test_metrics_are_averaged_over_the_seeds_that_have_them(tmp_path: Path) -> None:
    trials = planned(DEPTHS)
    write_study(tmp_path, DEPTHS, lambda arm, seed: None, trials)
    for trial in trials:
        metrics = {"purity": 0.5 + 0.1 * trial.seed} if trial.arm.label == "depth=1" else {}
        if trial.seed == 2:
            metrics["late"] = 7.0
        floors = Floors(metrics={"untrained": {"purity": 0.1 * trial.seed}, "pixels": {"purity": 0.25}})
        write_run(tmp_path, trial, result_of(trial, 50.0, 40.0, metrics=metrics, floors=floors))
    study = read_study(StudyFolder(tmp_path, "depths"))
    table = metrics_table(study, "synthetic-32", "depths_metrics")
    assert table is not None
    assert table.csv_header() == ["arm", "purity_mean", "purity_sd", "purity_n", "late_mean", "late_sd", "late_n"]
    first, second = (table.csv_row(row) for row in table.rows)
    assert first == ["depth=1", pytest.approx(0.6), pytest.approx(stdev([0.5, 0.6, 0.7])), 3, 7.0, None, 1]
    assert second == ["depth=2", None, None, None, 7.0, None, 1]
    assert [cell.text for cell in table.rows[0]] == ["depth=1", "0.6 ± 0.1 (n = 3)", "7"]
    assert table.notes[1:] == ("Floor, untrained encoder: purity 0 to 0.2.", "Floor, raw pixels: purity 0.25.")
    runs = runs_table(study, "depths_runs", tmp_path)
    place = runs.csv_header().index("purity")
    assert sorted(str(runs.csv_row(row)[place]) for row in runs.rows) == ["0.5", "0.6", "0.7", "None", "None", "None"]
    assert metrics_table(study, "other images", "depths_metrics") is None
    records = StudyFolder(tmp_path, "depths").trials()
    shown = [line.split() for line in text_of(metrics_of_study(Pool(tmp_path), records)).splitlines()]
    assert shown[1] == ["arm", "purity", "late"]
    assert shown[3:] == [
        ["depth=1", "0.6", "±0.1", "7"], ["depth=2", "–", "7"], shown[5],
        ["floor:", "untrained", "encoder", "0.1", "–"], ["floor:", "raw", "pixels", "0.25", "–"],
        ["±:", "standard", "deviation", "over", "seeds"],
    ]  # fmt: skip


def text_of(shown: object) -> str:
    with io.StringIO() as file:
        Console(width=120, file=file).print(shown)
        return file.getvalue()
