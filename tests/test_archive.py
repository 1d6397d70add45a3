"""The archive of a study names no place: no absolute path and no machine, in settings, arms and messages."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnjepa.ablations.archive import archive_search, archive_study
from cnnjepa.ablations.placeless import Placeless
from cnnjepa.ablations.pool import Pool
from cnnjepa.ablations.report.build import build_report
from cnnjepa.ablations.report.reading import read_study
from cnnjepa.ablations.study_folder import StudyFolder, status_of
from cnnjepa.cli.main import main
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.study import Study
from cnnjepa.schemas.yaml_text import read_yaml_file
from tests.studies import planned, result_of, write_run, write_study

SETTINGS = {"axes": ["/data/a/photos.tar", "/data/b/photos.tar", "photos.tar", "/sets/birds", "~/cats", 3]}
TRACE = """Traceback (most recent call last):
  File "/home/Jane Doe/bench/cnnjepa/data/readers.py", line 7, in read
    raise RunError(f"/data/a/photos.tar: n01/x 1.JPEG cannot be read (see /home/jane/log.txt:3)")
lab-7: 700.5 images/s, 12 and/or 1/2, https://example.org/a/b, file:///mnt/x/y.h5, C:\\Users\\jane\\z.png, ~jane/w.pt
"""


def test_paths_among_settings_get_different_endings_and_others_stay() -> None:
    placeless = Placeless(SETTINGS, Path("/srv/pool"))
    assert placeless.value(SETTINGS) == {
        "axes": ["a/photos.tar", "b/photos.tar", "photos.tar", "birds", "cats", 3]
    }  # fmt: skip
    assert placeless.value({"/data/a/photos.tar": ["/new/place"]}) == {"a/photos.tar": ["place"]}


def test_messages_lose_absolute_paths_and_machines_and_nothing_else() -> None:
    placeless = Placeless(SETTINGS, Path("/srv/pool"), ["lab-7", "cpu"[:2]])
    assert (
        placeless.said(TRACE)
        == """Traceback (most recent call last):
  File "readers.py", line 7, in read
    raise RunError(f"a/photos.tar: n01/x 1.JPEG cannot be read (see log.txt:3)")
(host): 700.5 images/s, 12 and/or 1/2, https://example.org/a/b, y.h5, z.png, w.pt
"""
    )
    assert placeless.text("cannot write /srv/pool/runs/by_hash/ab/result.json") == (
        "cannot write runs/by_hash/ab/result.json"
    )
    assert placeless.text("lab-7 stays where a text is no message of a run") == (
        "lab-7 stays where a text is no message of a run"
    )


@given(
    st.lists(
        st.lists(st.text("ab", min_size=1, max_size=2), min_size=1, max_size=4), min_size=1, max_size=6, unique_by=tuple
    ),
    st.lists(st.text("ab/", max_size=4).filter(lambda text: not text.startswith("/")), max_size=3),
)
def test_different_values_stay_different_and_no_place_is_left(paths: list[list[str]], others: list[str]) -> None:
    values = ["/" + "/".join(parts) for parts in paths] + list(dict.fromkeys(others))
    kept = Placeless(values, Path("/srv/pool")).value(values)
    assert len(set(kept)) == len(values) and not any(str(text).startswith("/") for text in kept)
    assert kept[len(paths) :] == values[len(paths) :]


def leaks(folder: Path, *words: str) -> list[str]:
    """Files below `folder` that have one of the words."""
    texts = {path.name: path.read_text() for path in folder.rglob("*") if path.is_file()}
    return [f"{name}: {word}" for name, text in texts.items() for word in words if word in text]


@pytest.mark.medium
def test_a_study_over_data_sets_is_archived_with_the_same_figures_under_the_paths_endings(tmp_path: Path) -> None:
    here, kept = tmp_path / "here", tmp_path / "kept"
    sets = [str(tmp_path / place / "photos.tar") for place in ("one", "two")]
    named = {"small": {"train_images": 100, "data.path": sets[0]}, sets[1]: {"train_images": 200}}
    study = Study(
        name="sets", preset="tiny64", question=f"Which of {sets[0]} and {sets[1]}?", set={"predictor.depth": 2},
        axes={"data.path": tuple(sets), "optimizer.lr": (0.01, 0.02)},
        baseline={"data.path": sets[1], "optimizer.lr": 0.01},
        claims=(
            {"says": f"{sets[0]} is worse", "arm": {"data.path": sets[0], "optimizer.lr": 0.02}, "expect": "worse"},
        ),
    )  # fmt: skip
    trials = planned(study, lambda config: "photos")
    write_study(here, study, lambda arm, seed: (70.0 if "two" in arm else 40.0, 30.0), trials)
    archive_study(here, "sets", kept)
    assert leaks(kept, str(tmp_path), "/one/", '"/') == []
    there = StudyFolder(kept, "sets")
    assert [r.arm for r in there.trials()] == [
        f"path={place}/photos.tar, lr={lr}" for place in ("one", "two") for lr in (0.01, 0.02)
    ]
    assert there.study().baseline == {"data.path": "two/photos.tar", "optimizer.lr": 0.01}
    assert there.study().claims[0].arm == {"data.path": "one/photos.tar", "optimizer.lr": 0.02}
    assert there.study().question == "Which of one/photos.tar and two/photos.tar?"
    assert there.trials()[2].baseline and there.trials()[0].choices["data.path"] == "one/photos.tar"
    for before, after in zip(StudyFolder(here, "sets").trials(), there.trials(), strict=True):
        one, other = status_of(Pool(here), before).result, status_of(Pool(kept), after).result
        assert one and other and one.probes == other.probes and before.key == after.key
    build_report(kept, ["sets"], tmp_path / "report")
    text = (tmp_path / "report" / "tables" / "sets_accuracy_held_out.csv").read_text()
    assert "one/photos.tar" in text and "two/photos.tar" in text

    arms = Study(name="named", preset="tiny64", axes={"set": named}, baseline={"set": "small"})
    write_study(here, arms, lambda arm, seed: (50.0, 40.0))
    archive_study(here, "named", kept)
    assert leaks(kept, str(tmp_path)) == []
    assert [r.arm for r in StudyFolder(kept, "named").trials()] == ["small", "two/photos.tar"]


def test_a_failed_trial_is_archived_without_the_places_in_its_messages(tmp_path: Path) -> None:
    here, kept = tmp_path / "here", tmp_path / "kept"
    images = tmp_path / "my images" / "photos.tar"
    study = Study(name="failing", preset="tiny64", set={"data.path": str(images)}, axes={"predictor.depth": (1, 2)})
    trials = planned(study, lambda config: "photos")
    write_study(here, study, lambda arm, seed: None, trials)
    told = f"{images}: n01/x.JPEG cannot be read"
    fields: dict[str, Any] = {
        "error": told, "log_tail": f"--- on lab-7\n  File \"{tmp_path}/a b/trial.py\", line 3\n{told}",
        "skipped_images": (f"{images.parent}/y.png", "n02/z.png"), "software": {"host": "lab-7", "commit": "0123"},
    }  # fmt: skip
    write_run(here, trials[0], None)
    failed = result_of(trials[0], 1.0, 1.0, status="failed", **fields)
    Pool(here).folder(trials[0].pretrain_hash).write_result(failed)
    write_run(here, trials[1], result_of(trials[1], 1.0, 1.0, probe_software={"host": "lab-8", "commit": "4"}))
    archive_study(here, "failing", kept)
    assert leaks(kept, str(tmp_path), "my images", "lab-7", "lab-8", "a b/") == []
    result = status_of(Pool(kept), StudyFolder(kept, "failing").trials()[0]).result
    assert result and result.error == "photos.tar: n01/x.JPEG cannot be read"
    assert result.log_tail == f'--- on (host)\n  File "trial.py", line 3\n{result.error}'
    assert result.skipped_images == ("y.png", "n02/z.png") and result.software == {"commit": "0123"}


def test_a_searchs_arms_and_table_are_archived_without_places(tmp_path: Path) -> None:
    folder = tmp_path / "here" / "studies" / "s"
    folder.mkdir(parents=True)
    (folder / "search.yaml").write_text(
        "images: 0123\nprocesses: 1\nname: s\npreset: smoke\nset: {data.path: /home/j/p.tar}\n"
        "space: {train_file: 'choice(/home/j/a.h5, /home/k/a.h5)', "
        "x: {/home/j/arm: {predictor.depth: 1}, b: {predictor.depth: 2}}}\n"
    )
    (folder / "trials.csv").write_text("trial,train_file,x,run\n0,/home/j/a.h5,/home/j/arm,ab\n")
    assert archive_search(tmp_path / "here", "s", tmp_path / "kept")
    assert (tmp_path / "kept" / "studies" / "s" / "trials.csv").read_text() == (
        "trial,train_file,x,run\n0,j/a.h5,arm,ab\n"
    )
    kept = read_yaml_file(tmp_path / "kept" / "studies" / "s" / "search.yaml", "search")
    assert kept["space"] == {
        "train_file": "choice(j/a.h5, k/a.h5)",
        "x": {"arm": {"predictor.depth": 1}, "b": {"predictor.depth": 2}},
    }
    assert leaks(tmp_path / "kept", "/home") == []


@pytest.mark.parametrize("text", ["", "k = 5", "resnet18/small/3 stages", "n / a", "<b>x</b>", "10:30", "3 < 4 / 2"])
def test_a_text_without_places_stays_as_it_is(text: str) -> None:
    assert Placeless({}, Path("/srv/pool"), ["lab-7"]).said(text) == text


def test_an_archived_study_is_one_file_of_lines_and_stands_as_before_with_curves(tmp_path: Path) -> None:
    here, kept = tmp_path / "here", tmp_path / "kept"
    study = Study(name="lines", preset="tiny64", axes={"predictor.depth": (1, 2)}, seeds=(0, 1))
    trials = write_study(here, study, lambda arm, seed: None if (arm, seed) == ("depth=2", 1) else (50.0 + seed, 40.0))
    log = Pool(here).folder(trials[0].pretrain_hash).path / "metrics.jsonl"
    log.write_text(log.read_text() + '{"kind": "train", "epoch": 1, "loss": NaN}\n{"kind": "tr')
    assert archive_study(here, "lines", kept).missing == ("depth=2, seed 1",)
    assert sorted(path.name for path in kept.rglob("*") if path.is_file()) == ["study.yaml", "trials.jsonl"]
    lines = [json.loads(line) for line in (kept / "studies/lines/trials.jsonl").read_text().splitlines()]
    assert [(set(line), line["trial"]["seed"]) for line in lines] == [
        ({"trial", "result", "logged"}, seed) for seed in (0, 1, 0, 1)
    ]
    assert lines[3]["result"] is None and lines[0]["logged"][-1] == '{"kind": "tr'
    before, after = (read_study(StudyFolder(root, "lines")) for root in (here, kept))
    assert [t.status.state for t in after.trials] == [t.status.state for t in before.trials]
    assert [t.result for t in after.trials] == [t.result for t in before.trials] and after.trials[0].result
    assert [t.curves for t in after.trials if t.result] == [t.curves for t in before.trials if t.result]
    assert after.trials[0].curves.train["loss"][-2:] == [0.05, None]
    assert after.trials[0].curves.problem == "1 line of metrics.jsonl cannot be read"


def test_status_reads_an_archived_study_and_an_archive_can_be_archived_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = Study(name="again", preset="tiny64", axes={"predictor.depth": (1, 2)})
    write_study(tmp_path / "here", study, lambda arm, seed: (50.0, 40.0))
    for source, to in (("here", "kept"), ("kept", "copy"), ("here", "kept")):
        archive_study(tmp_path / source, "again", tmp_path / to)
    files = [tmp_path / root / "studies" / "again" / "trials.jsonl" for root in ("kept", "copy")]
    assert files[0].read_bytes() == files[1].read_bytes()
    monkeypatch.setattr("sys.argv", ["cnnjepa", "status", "--root", str(tmp_path / "kept")])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert capsys.readouterr().out == "again  2 finished\n"


def test_a_study_that_was_run_in_the_folder_is_not_replaced_by_an_archived_one(tmp_path: Path) -> None:
    study = Study(name="both", preset="tiny64", axes={"predictor.depth": (1, 2)})
    for root in ("here", "there"):
        write_study(tmp_path / root, study, lambda arm, seed: (50.0, 40.0))
    with pytest.raises(ConfigError, match=r"studies/both holds a study that was run there.*give another --to"):
        archive_study(tmp_path / "here", "both", tmp_path / "there")


def test_a_trial_that_is_trained_again_counts_before_the_archived_one(tmp_path: Path) -> None:
    here, kept = tmp_path / "here", tmp_path / "kept"
    study = Study(name="more", preset="tiny64", axes={"predictor.depth": (1, 2)})
    first, second = write_study(here, study, lambda arm, seed: (50.0, 40.0))
    failed = result_of(second, 1.0, 1.0, status="failed", error="no")
    (Pool(here).folder(second.pretrain_hash).path / "result.json").unlink()
    Pool(here).folder(second.pretrain_hash).write_result(failed)
    archive_study(here, "more", kept)
    records = StudyFolder(kept, "more").trials()
    assert [status_of(Pool(kept), record).state for record in records] == ["finished", "failed"]
    write_run(kept, second, None)
    assert status_of(Pool(kept), records[1]).state == "begun"
    write_run(kept, second, result_of(second, 60.0, 40.0))
    result = status_of(Pool(kept), records[1]).result
    assert result and result.probes.held_out and result.probes.held_out.linear_top1 == 60.0
    write_run(kept, first, result_of(first, 60.0, 40.0, probe_hash="other"))  # another study probes the run otherwise
    result = status_of(Pool(kept), records[0]).result
    assert result and result.probes.held_out and result.probes.held_out.linear_top1 == 50.0


def test_a_damaged_archive_is_named_with_its_line_and_a_damaged_result_with_its_run(tmp_path: Path) -> None:
    here, kept = tmp_path / "here", tmp_path / "kept"
    study = Study(name="torn", preset="tiny64", axes={"predictor.depth": (1, 2)})
    trials = write_study(here, study, lambda arm, seed: (50.0, 40.0))
    archive_study(here, "torn", kept)
    path = kept / "studies" / "torn" / "trials.jsonl"
    whole = path.read_text()
    path.write_text(whole.replace('"status":"finished"', '"status":"done"', 1))
    (warning,) = read_study(StudyFolder(kept, "torn")).warnings
    assert f"the archived result of {trials[0].pretrain_hash[:12]} cannot be read" in warning
    path.write_text(whole[:-40])
    with pytest.raises(ConfigError, match=r"trials\.jsonl cannot be read \(line 2: "):
        StudyFolder(kept, "torn").trials()


def test_the_old_name_of_the_command_works_and_names_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = Study(name="old", preset="smoke", axes={"predictor.depth": (1,)})
    write_study(tmp_path, study, lambda arm, seed: (50.0, 40.0))
    printed = {}
    for name in ("keep", "archive"):
        archive = ["cnnjepa", name, "old", "--to", str(tmp_path / name), "--root", str(tmp_path)]
        monkeypatch.setattr("sys.argv", archive)
        with pytest.raises(SystemExit, match="0"):
            main()
        printed[name] = capsys.readouterr().err
    assert printed == {"keep": "cnnjepa: `cnnjepa keep` is deprecated; use `cnnjepa archive`\n", "archive": ""}
    for file in ("study.yaml", "trials.jsonl"):
        old, new = (tmp_path / name / "studies" / "old" / file for name in ("keep", "archive"))
        assert old.read_bytes() == new.read_bytes()
