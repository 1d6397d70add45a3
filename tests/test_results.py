"""The committed evidence: every study in results/ is complete, and the documents' tables are made from it."""

from pathlib import Path

import pytest

from cnnjepa.ablations.report.reading import read_study
from cnnjepa.ablations.study_folder import StudyFolder, study_names

ROOT = Path(__file__).parent.parent
PHOTOS = ROOT / "results" / "photos"


def test_every_kept_study_of_results_reports_all_its_trials_with_figures_and_curves() -> None:
    counts = {}
    for name in study_names(PHOTOS):
        study = read_study(StudyFolder(PHOTOS, name))
        assert study.warnings == ()
        assert all(trial.figures("held_out") and trial.curves.problem is None for trial in study.trials)
        counts[name] = len(study.trials)
    assert counts == {
        "photos5000-equal-images": 27, "photos5000-equal-time": 8, "photos5000-label-free": 16, "photos_conv": 6,
        "photos_depth": 10, "photos_depth_beyond": 9, "photos_kernel": 9, "photos_masking": 15, "photos_ratio": 9,
        "photos_sampler": 6,
    }  # fmt: skip


def test_a_changed_number_in_a_documents_table_is_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")
    from results_tables import TABLES, with_tables

    page = (ROOT / "docs" / "reproduction.md").read_text(encoding="utf-8")
    both = page + (labels := (ROOT / "docs" / "labels.md").read_text(encoding="utf-8"))
    assert [both.count(f"<!-- results: {name} -->") for name in TABLES] == [1] * len(TABLES)
    assert "| `photos5000-label-free` | LiDAR | −0.08 [−0.52, +0.37] |" in labels and with_tables(labels) == labels
    assert "| LeJEPA | 14.4 ± 0.1 |" in page and with_tables(page) == page
    assert with_tables(page.replace("| LeJEPA | 14.4 ±", "| LeJEPA | 15.4 ±")) == page
    with pytest.raises(KeyError, match="unknown"):
        with_tables("<!-- results: unknown -->\n<!-- end of results -->\n")


def test_results_hold_small_files_and_no_report() -> None:
    files = [path for path in PHOTOS.rglob("*") if path.is_file() and "report" not in path.relative_to(PHOTOS).parts]
    assert {path.suffix for path in files} == {".jsonl", ".yaml", ".csv", ".json"}
    assert sum(path.stat().st_size for path in files) < 1e6
