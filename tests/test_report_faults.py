"""A report of studies that are half done, failed, damaged or missing."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from reports import DEPTHS, comparison, outcome, table
from studies import result_of, write_run, write_study

from cnnjepa.ablations.report.build import build_report
from cnnjepa.cli.main import main
from cnnjepa.schemas import ConfigError, Diagnostics, Probes

pytestmark = [pytest.mark.medium, pytest.mark.usefixtures("blank_pictures")]


def test_failed_and_collapsed_trials_are_shown_and_never_averaged(tmp_path: Path) -> None:
    trials = write_study(tmp_path, DEPTHS, outcome)
    by_label = {trial.label: trial for trial in trials}
    health = Diagnostics(rankme=1.0, feature_std=0.0, feature_dim=32, collapse_evidence="RankMe is 1.000 of 32")
    for seed in (0, 1):
        trial = by_label[f"depth=3, seed {seed}"]
        write_run(tmp_path, trial, result_of(trial, 5.0, 5.0, status="collapsed", diagnostics=health))
    trial = by_label["depth=4, seed 0"]
    failure = result_of(trial, 0, 0, status="failed", error="the disk is full", probes=Probes(), diagnostics=None)
    write_run(tmp_path, trial, failure)
    rows = {row.arm.label: row for row in comparison(tmp_path).rows}
    assert rows["depth=3"].values["linear_top1"] == {2: 72.1}
    assert rows["depth=3"].problems == ["2 of 3 collapsed"]
    assert rows["depth=3"].differences["linear_top1"].verdict == "no test"
    assert rows["depth=4"].problems == ["1 of 3 failed"] and len(rows["depth=4"].counted) == 2
    words = " ".join(dict(build_report(tmp_path, ["depths"]).sentences)["depths"])
    assert "Collapsed (shown, not averaged): depth=3 at 2 of 3 seeds" in words and "Failed: depth=4" in words
    page = (tmp_path / "studies/depths/report/report.html").read_text(encoding="utf-8")
    assert "the disk is full" in page and "RankMe is 1.000 of 32" in page


def test_not_a_number_is_unreadable_and_named_rather_than_averaged(tmp_path: Path) -> None:
    trials = write_study(tmp_path, DEPTHS, outcome)
    run = tmp_path / "runs" / "by_hash" / trials[0].pretrain_hash
    content = json.loads((run / "result.json").read_text())
    content["probes"]["held_out"]["linear_top1"] = float("nan")
    (run / "result.json").write_text(json.dumps(content))
    torn = tmp_path / "runs" / "by_hash" / trials[1].pretrain_hash / "result.json"
    torn.write_text(torn.read_text()[:100])
    swapped = tmp_path / "runs" / "by_hash" / trials[2].pretrain_hash / "result.json"
    shutil.copy(tmp_path / "runs" / "by_hash" / trials[3].pretrain_hash / "result.json", swapped)
    built = build_report(tmp_path, ["depths"])
    assert len(built.warnings) == 3
    for trial, warning in zip(trials, built.warnings, strict=False):
        assert trial.label in warning and f"runs/by_hash/{trial.pretrain_hash}/result.json" in warning
        assert str(tmp_path) not in warning
    assert "is the result of another run" in built.warnings[2]
    row = next(row for row in comparison(tmp_path).rows if row.arm.label == "depth=1")
    assert row.counted == {} and row.problems == ["3 of 3 unreadable"]


def test_a_half_done_study_lists_what_is_missing(reported: Path, tmp_path: Path) -> None:
    rows = {row["arm"]: row for row in table(reported / "studies" / "ratios" / "report", "ratios_accuracy_held_out")}
    assert rows["ratio=0.4"]["state"] == "1 of 2 not run yet" and rows["ratio=0.4"]["n"] == "1"
    assert rows["ratio=0.4"]["linear_top1_interval"] == "wilson"
    assert rows["ratio=0.4"]["linear_top1_verdict"] == "one seed in common: no verdict"
    text = (reported / "studies" / "ratios" / "report" / "report.md").read_text(encoding="utf-8")
    assert "Not run yet: ratio=0.4 at 1 of 2 seeds" in text and "50.00†" in text
    trials = write_study(tmp_path, DEPTHS, lambda arm, seed: None)
    write_run(tmp_path, trials[0], None)
    words = " ".join(dict(build_report(tmp_path, []).sentences)["depths"])
    assert "0 of 12 trials finished" in words and "Begun, not finished: depth=1 at 1 of 3 seeds" in words
    folder = tmp_path / "studies" / "depths" / "report"
    assert [p.stem for p in (folder / "tables").glob("*.csv")] == ["depths_runs"]
    assert "no accuracies" in (folder / "report.md").read_text(encoding="utf-8")


def test_a_trial_of_other_probe_settings_is_not_counted_and_said_to_need_probing(tmp_path: Path) -> None:
    trials = write_study(tmp_path, DEPTHS, outcome)
    write_run(tmp_path, trials[0], result_of(trials[0], 60.0, 50.0, probe_hash="other"))
    row = next(row for row in comparison(tmp_path).rows if row.arm.label == "depth=1")
    assert list(row.counted) == [1, 2]
    words = " ".join(dict(build_report(tmp_path, ["depths"]).sentences)["depths"])
    assert "To be probed again: depth=1 at 1 of 3 seeds" in words


def test_one_damaged_study_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    trials = write_study(tmp_path, DEPTHS, outcome)
    for name, content in (("torn", "name: [tor"), ("empty", "")):
        (tmp_path / "studies" / name).mkdir()
        (tmp_path / "studies" / name / "study.yaml").write_text(content)
    built = build_report(tmp_path, [])
    assert [path.parent.parent.name for path in built.pages[:-1]] == ["depths"]
    assert [warning.split(" is left out")[0] for warning in built.warnings] == ["study empty", "study torn"]
    with pytest.raises(ConfigError, match=r"torn/study\.yaml cannot be read"):
        build_report(tmp_path, ["torn"])
    # Nor does one odd log: JSON, but not what training writes.
    run = write_run(tmp_path, trials[0], None)
    (run / "result.json").unlink()
    (run / "metrics.jsonl").write_text("{}\n")
    words = " ".join(dict(build_report(tmp_path, ["depths"]).sentences)["depths"])
    assert "Begun, not finished: depth=1 at 1 of 3 seeds" in words


def test_damaged_logs_leave_gaps_and_are_said(tmp_path: Path) -> None:
    trials = write_study(tmp_path, DEPTHS, outcome)
    log = tmp_path / "runs" / "by_hash" / trials[0].pretrain_hash / "metrics.jsonl"
    log.write_text(log.read_text() + '{"kind": "train", "epoch": 3, "loss": NaN}\n{"kind": "tr')
    (tmp_path / "runs" / "by_hash" / trials[1].pretrain_hash / "metrics.jsonl").unlink()
    build_report(tmp_path, ["depths"])
    text = (tmp_path / "studies/depths/report/report.md").read_text(encoding="utf-8")
    assert "1 line of metrics.jsonl cannot be read" in text and "metrics.jsonl is missing" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "`cnnjepa ablate predictor --depths 1,2,3,4 --root "),
        (["nothing"], "holds no study"),
    ],
)
def test_no_study_is_one_message_and_exit_code_2(
    tmp_path: Path,
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["cnnjepa", "report", *words, "--root", str(tmp_path)])
    with pytest.raises(SystemExit) as left:
        main()
    message = capsys.readouterr().err
    assert left.value.code == 2
    assert said in message and len(message.strip().splitlines()) == 1


def test_wrong_input_is_refused_with_what_is_legal(tmp_path: Path) -> None:
    trials = write_study(tmp_path, DEPTHS, outcome)
    with pytest.raises(
        ConfigError, match=r"--run zzz: no finished trials have names that begin with it; finished trials are \w{12}, "
    ):
        build_report(tmp_path, [], run="zzz")
    with pytest.raises(ConfigError, match="12 finished trials have names that begin with it"):
        build_report(tmp_path, [], run="")
    with pytest.raises(ConfigError, match="nearest is 'depths'"):
        build_report(tmp_path, ["dephts"])
    (tmp_path / "a_file").touch()
    with pytest.raises(ConfigError, match="a_file is a file; a report needs a folder"):
        build_report(tmp_path, ["depths"], out=tmp_path / "a_file")
    (tmp_path / "studies" / "depths" / "trials.json").write_text("[]")
    with pytest.raises(ConfigError, match="lists no trials"):
        build_report(tmp_path, ["depths"])
    assert trials
