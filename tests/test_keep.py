"""What is kept of a study names no place: no absolute path and no machine, in settings, arms and messages."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnjepa.ablations.keep import keep_search, keep_study
from cnnjepa.ablations.placeless import Placeless
from cnnjepa.ablations.pool import Pool
from cnnjepa.ablations.report.build import build_report
from cnnjepa.ablations.study_folder import StudyFolder, standing_of
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
    placeless = Placeless(SETTINGS, Path("/work/root"))
    assert placeless.value(SETTINGS) == {
        "axes": ["a/photos.tar", "b/photos.tar", "photos.tar", "birds", "cats", 3]
    }  # fmt: skip
    assert placeless.value({"/data/a/photos.tar": ["/new/place"]}) == {"a/photos.tar": ["place"]}


def test_messages_lose_absolute_paths_and_machines_and_nothing_else() -> None:
    placeless = Placeless(SETTINGS, Path("/work/root"), ["lab-7", "cpu"[:2]])
    assert (
        placeless.said(TRACE)
        == """Traceback (most recent call last):
  File "readers.py", line 7, in read
    raise RunError(f"a/photos.tar: n01/x 1.JPEG cannot be read (see log.txt:3)")
(host): 700.5 images/s, 12 and/or 1/2, https://example.org/a/b, y.h5, z.png, w.pt
"""
    )
    assert placeless.text("cannot write /work/root/runs/by_hash/ab/result.json") == (
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
    kept = Placeless(values, Path("/work/root")).value(values)
    assert len(set(kept)) == len(values) and not any(str(text).startswith("/") for text in kept)
    assert kept[len(paths) :] == values[len(paths) :]


def leaks(folder: Path, *words: str) -> list[str]:
    """Files below `folder` that have one of the words."""
    texts = {path.name: path.read_text() for path in folder.rglob("*") if path.is_file()}
    return [f"{name}: {word}" for name, text in texts.items() for word in words if word in text]


def test_a_study_over_data_sets_is_kept_with_the_same_figures_under_the_paths_endings(tmp_path: Path) -> None:
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
    keep_study(here, "sets", kept)
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
        one, other = standing_of(Pool(here), before).result, standing_of(Pool(kept), after).result
        assert one and other and one.probes == other.probes and before.key == after.key
    build_report(kept, ["sets"], tmp_path / "report")
    text = (tmp_path / "report" / "tables" / "sets_accuracy_held_out.csv").read_text()
    assert "one/photos.tar" in text and "two/photos.tar" in text

    arms = Study(name="named", preset="tiny64", axes={"set": named}, baseline={"set": "small"})
    write_study(here, arms, lambda arm, seed: (50.0, 40.0))
    keep_study(here, "named", kept)
    assert leaks(kept, str(tmp_path)) == []
    assert [r.arm for r in StudyFolder(kept, "named").trials()] == ["small", "two/photos.tar"]


def test_a_failed_trial_is_kept_without_the_places_in_its_messages(tmp_path: Path) -> None:
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
    keep_study(here, "failing", kept)
    assert leaks(kept, str(tmp_path), "my images", "lab-7", "lab-8", "a b/") == []
    result = standing_of(Pool(kept), StudyFolder(kept, "failing").trials()[0]).result
    assert result and result.error == "photos.tar: n01/x.JPEG cannot be read"
    assert result.log_tail == f'--- on (host)\n  File "trial.py", line 3\n{result.error}'
    assert result.skipped_images == ("y.png", "n02/z.png") and result.software == {"commit": "0123"}


def test_a_searchs_arms_and_table_are_kept_without_places(tmp_path: Path) -> None:
    folder = tmp_path / "here" / "studies" / "s"
    folder.mkdir(parents=True)
    (folder / "search.yaml").write_text(
        "images: 0123\nprocesses: 1\nname: s\npreset: smoke\nset: {data.path: /home/j/p.tar}\n"
        "space: {train_file: 'choice(/home/j/a.h5, /home/k/a.h5)', "
        "x: {/home/j/arm: {predictor.depth: 1}, b: {predictor.depth: 2}}}\n"
    )
    (folder / "trials.csv").write_text("trial,train_file,x,run\n0,/home/j/a.h5,/home/j/arm,ab\n")
    assert keep_search(tmp_path / "here", "s", tmp_path / "kept")
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
    assert Placeless({}, Path("/work/root"), ["lab-7"]).said(text) == text
