"""Storage of a search's trials: paths with any characters, other searches' storages, locks that were left."""

import functools
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from runs import SERVER, in_process
from searches import ask, space
from sqlalchemy import make_url

from cnnjepa.ablations.data_facts import Resolver
from cnnjepa.ablations.search import journal_lock
from cnnjepa.ablations.search.journal_lock import JournalLock
from cnnjepa.ablations.search.place import place_of
from cnnjepa.ablations.search.points import check_search
from cnnjepa.ablations.search.record import claim, folder_id, record_of, refuse_other_owner, refuse_other_search
from cnnjepa.ablations.search.storage import open_study, storage_at, storage_errors, tried
from cnnjepa.ablations.study_folder import StudyFolder
from cnnjepa.errors import RunError
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.space import SearchSpace

NAMES = [
    "exp?1",
    "exp?2",
    "a%20b",
    "x#y",
    "sp ace",
    "ünï-数据",
    "{name}",
    "a&b=c",
    "a:b@c",
    "quo'te\"s",
    "back\\slash",
    "+",
]


# --- Paths ---------------------------------------------------------------------------------------------------------


@pytest.mark.medium
def test_a_root_with_any_characters_has_its_own_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # roots are relative, as people give them
    for name in NAMES:
        folder = Path(name) / "studies" / "s"
        folder.mkdir(parents=True)
        place = place_of(None, folder)
        assert place.file == tmp_path / name / "studies" / "s" / "optuna.db"
        assert make_url(place.url).database == str(place.file)
        study = optuna.create_study(storage=storage_at(place, pytest.fail), study_name="s")
        study.set_user_attr("root", name)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES)  # none lies anywhere else
    for name in NAMES:
        storage = storage_at(place_of(None, Path(name) / "studies" / "s"), pytest.fail)
        assert optuna.load_study(storage=storage, study_name="s").user_attrs == {"root": name}


@pytest.mark.parametrize("url", ["sqlite:///{}", "journal:{}"])
def test_a_relative_storage_does_not_move_with_the_working_directory(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    storage = storage_at(place_of(url.format("kept"), tmp_path), pytest.fail)
    optuna.create_study(storage=storage, study_name="s")
    monkeypatch.chdir(tmp_path / "elsewhere")
    optuna.load_study(storage=storage, study_name="s").set_user_attr("a", 1)
    again = storage_at(place_of(url.format("../kept"), tmp_path), pytest.fail)
    assert optuna.load_study(storage=again, study_name="s").user_attrs == {"a": 1}
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_what_sqlite_may_be_told_is_passed_on(tmp_path: Path) -> None:
    place = place_of(f"sqlite:///{tmp_path}/o.db?timeout=7", tmp_path)
    assert place.file == tmp_path / "o.db" and make_url(place.url).query == {"timeout": "7"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nowhere/o.db", r"--storage nowhere/o.db: it is not a URL; --storage takes a database URL \(sqlite:///FILE"),
        ("journal:", r"--storage journal:: the file is missing"),
        ("sqlite://", r"--storage sqlite://: a database in memory is lost with the process"),
        ("sqlite:///:memory:", r"a database in memory is lost with the process"),
        ("sqlite:///{}/exp?1/o.db", r"\?1/o\.db is not an option of SQLite; write a \? in a path as %3F"),
        ("sqlite:///{}/none/o.db", r"the folder /.*/none does not exist; make it first"),
        ("journal:{}/none/j.log", r"the folder /.*/none does not exist; make it first"),
        ("sqlite:///{}/file/o.db", r"the folder /.*/file is not a folder"),
        ("sqlite:///{}", r"/.* is a folder; name a file in it"),
        ("journal:{}", r"/.* is a folder; name a file in it"),
        ("journal:{}/file", r"/.*/file is not a journal of Optuna's; name a new file"),
        ("sqlite:///{}/readonly/o.db", r"/.*/readonly is not writable for this user"),
        ("journal:{}/readonly/j.log", r"/.*/readonly is not writable for this user"),
        ("sqlite:///{}/file", r"storage sqlite:////.*/file cannot be opened \(.*file is not a database\)"),
        ("nosuchdb://x", r"storage nosuchdb://x cannot be opened .*--storage takes a database URL"),
        ("postgresql://me:secret@localhost:1/d", r"storage postgresql://me:\*\*\*@localhost:1/d cannot be opened"),
    ],
)
def test_a_storage_that_cannot_be_used_is_one_message_and_makes_nothing(
    given: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a database, and not a journal either\n" * 40)
    (tmp_path / "readonly").mkdir()
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "readonly" and may(path, mode))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(ConfigError, match=message) as refusal:
        storage_at(place_of(given.format(tmp_path), tmp_path), pytest.fail)
    assert "\n" not in str(refusal.value) and "secret" not in str(refusal.value)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_database_that_goes_away_is_named(tmp_path: Path) -> None:
    place = place_of(None, tmp_path)
    study = open_study(space(), storage_at(place, pytest.fail))
    (tmp_path / "optuna.db").write_bytes(b"overwritten" * 1000)
    says = r"storage sqlite:.*optuna\.db cannot be read or written \(.*not a database\)"
    with pytest.raises(RunError, match=says), storage_errors(place):
        study.set_user_attr("a", 1)


# --- Other searches ------------------------------------------------------------------------------------------------


# Keeps the facts about images, which are drawn to find them.
resolver = functools.cache(lambda: Resolver("cpu", 1))


def begin(asked: SearchSpace, root: Path, storage: Any) -> StudyFolder:
    """Do what `search` does before its first trial."""
    folder = StudyFolder(root, asked.name)
    config = check_search(asked, None)
    record = record_of(asked, config, resolver().facts(config), 1)
    refuse_other_search(folder, record)
    refuse_other_owner(storage, "o.db", folder, record)
    record["id"] = folder_id(folder)
    folder.path.mkdir(parents=True, exist_ok=True)
    (folder.path / "search.yaml").write_text(yaml.safe_dump(record))
    claim(storage, "o.db", folder, record)
    return folder


DEPTHS: Any = {"predictor.depth": [1, 2]}


@pytest.fixture(params=["sqlite", "journal"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    url = {"sqlite": f"sqlite:///{tmp_path}/o.db", "journal": f"journal:{tmp_path}/j.log"}[request.param]
    return storage_at(place_of(url, tmp_path), pytest.fail)


@pytest.mark.medium
@pytest.mark.parametrize(
    ("other", "differs"),
    [
        ({"set": {"optimizer.lr": 0.5}, "objective": "linear"}, "objective: there knn, requested linear"),
        ({"set": {"optimizer.lr": 0.5}}, r"set\.optimizer\.lr: there \(none\), requested 0\.5"),
        ({"space": {"predictor.depth": [1, 2, 3]}}, r"there choice\(1, 2\), requested choice\(1, 2, 3\)"),
        ({"space": {"optimizer.lr": "log(1e-4, 1e-1)"}}, r"space\.optimizer\.lr: there \(none\), requested log"),
        ({"preset": "demo", "set": {"train_images": 640, "val_images": 48}}, r"preset: there smoke, requested demo"),
        ({"set": {"data.drawing_seed": 1}}, r"images: there [0-9a-f]{64}, requested [0-9a-f]{64}"),
    ],
)
def test_a_storage_of_another_search_is_refused_naming_it_and_left_as_it_was(
    other: dict[str, Any], differs: str, storage: Any, tmp_path: Path
) -> None:
    folder = begin(space(space=DEPTHS), tmp_path / "A", storage)
    study = open_study(space(space=DEPTHS), storage)
    study.tell(ask(study, space(space=DEPTHS)), 5.0)
    before = [(trial.number, trial.params, trial.value) for trial in study.get_trials()]
    with pytest.raises(ConfigError, match=r"o\.db holds another search 's', that of /.* on ") as refusal:
        begin(space(**{"space": DEPTHS, **other}), tmp_path / "B", storage)
    assert str(folder.path) in str(refusal.value) and "Give another --name, or another --storage" in str(refusal.value)
    assert re.search(differs, str(refusal.value))
    assert not (tmp_path / "B").exists()
    assert [(trial.number, trial.params, trial.value) for trial in study.get_trials()] == before
    begin(space(name="other", **{"space": DEPTHS, **other}), tmp_path / "B", storage)  # another name is free


@pytest.mark.medium
def test_the_same_search_resumes_also_when_its_root_was_moved(storage: Any, tmp_path: Path) -> None:
    begin(space(space=DEPTHS), tmp_path / "A", storage)
    begin(space(space=DEPTHS), tmp_path / "A", storage)
    (tmp_path / "A").rename(tmp_path / "B")
    folder = begin(space(space=DEPTHS), tmp_path / "B", storage)
    with pytest.raises(ConfigError, match=r"holds the search 's' of /.*/B/studies/s on .* Resume it with its own"):
        begin(space(space=DEPTHS), tmp_path / "A", storage)
    (folder.path / "search.yaml").unlink()
    begin(space(space=DEPTHS), tmp_path / "B", storage)


@pytest.mark.medium
def test_a_changed_preset_is_another_search(storage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(space(space=DEPTHS), tmp_path / "A", storage)
    monkeypatch.setattr("cnnjepa.ablations.search.record.pretrain_hash", lambda *_: "0" * 64)
    with pytest.raises(ConfigError, match=r"base config's training settings: there [1-9a-f0]{12}, now 0{12} \(the"):
        begin(space(space=DEPTHS), tmp_path / "A", storage)


@pytest.mark.medium
def test_a_search_of_a_version_without_owners_resumes_and_a_strangers_study_is_refused(
    storage: Any, tmp_path: Path
) -> None:
    study = open_study(space(space=DEPTHS), storage)
    study.tell(ask(study, space(space=DEPTHS)), 5.0)
    with pytest.raises(ConfigError, match=r"holds a study 's' with 1 trial that is not this search's: .*no record"):
        begin(space(space=DEPTHS), tmp_path / "A", storage)
    old = StudyFolder(tmp_path / "A", "s").path
    old.mkdir(parents=True)
    record = {**space(space=DEPTHS).model_dump(mode="json"), "processes": 1}
    facts = resolver().facts(check_search(space(space=DEPTHS), None))
    (old / "search.yaml").write_text(yaml.safe_dump({**record, "images": facts.fingerprint}))
    begin(space(space=DEPTHS), tmp_path / "A", storage)
    assert len(tried(open_study(space(space=DEPTHS), storage))) == 1


# --- Locks of a journal --------------------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_lock, "_STALE_SECONDS", 0.3)
    monkeypatch.setattr(journal_lock, "_STALE_LOOKS", 5)
    monkeypatch.setattr(journal_lock, "_LONGEST_PAUSE", 0.05)


def test_a_lock_is_stale_within_seconds() -> None:
    assert journal_lock._STALE_SECONDS <= 10 and journal_lock._STALE_LOOKS * journal_lock._LONGEST_PAUSE <= 10


@pytest.mark.parametrize("target", ["s/j.log", "nowhere", None])  # None: the absolute path, as it is now
@pytest.mark.usefixtures("impatient")
def test_a_lock_that_was_left_is_removed_with_a_warning(
    target: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "j.log").touch()
    left = tmp_path / "s" / "j.log.lock"
    left.symlink_to(target or tmp_path / "s" / "j.log")
    said: list[str] = []
    begun = time.monotonic()
    study = open_study(space(), storage_at(place_of("journal:s/j.log", tmp_path), said.append))
    study.set_user_attr("a", 1)
    assert said == [f"removed {left}, the lock of a process that was killed"]
    assert time.monotonic() - begun < 30 and not left.is_symlink()


def _append(journal: Path, count: int, die: bool) -> None:
    # A holder that lives may wait for a core: on a loaded machine longer than `impatient` waits.
    journal_lock._STALE_SECONDS, journal_lock._STALE_LOOKS, journal_lock._LONGEST_PAUSE = 3.0, 5, 0.05
    lock = JournalLock(journal, lambda text: None)
    for _ in range(count):
        lock.acquire()
        number = int(journal.read_text())
        time.sleep(0.001)
        journal.write_text(str(number + 1))
        if die:
            os.kill(os.getpid(), signal.SIGKILL)
        lock.release()


@pytest.mark.kills
@pytest.mark.processes
def test_a_lock_excludes_others_and_a_killed_holder_holds_up_nobody(tmp_path: Path) -> None:
    journal = tmp_path / "j"
    journal.write_text("0")
    # Not forks of this process: threads that libraries have started here may hold locks, which no fork gets back.
    assert in_process(_append, journal, 1, True) == -signal.SIGKILL
    assert (tmp_path / "j.lock").is_symlink()
    work = [SERVER.Process(target=_append, args=(journal, 20, False)) for _ in range(2)]
    for process in work:
        process.start()
    for process in work:
        process.join(60)
    assert [process.exitcode for process in work] == [0, 0]
    assert journal.read_text() == "41" and not (tmp_path / "j.lock").is_symlink()


@pytest.mark.usefixtures("impatient")
def test_the_lock_of_a_live_process_is_not_removed_by_one_that_was_robbed(tmp_path: Path) -> None:
    journal = tmp_path / "j"
    journal.touch()
    slow, other = JournalLock(journal, lambda text: None), JournalLock(journal, lambda text: None)
    slow.acquire()
    other.acquire()  # breaks it, since `slow` does nothing for long
    slow.release()
    assert (tmp_path / "j.lock").is_symlink()
    other.release()
    assert not (tmp_path / "j.lock").is_symlink()


def test_a_line_torn_by_a_kill_or_a_full_disk_does_not_spoil_the_journal(tmp_path: Path) -> None:
    place = place_of(f"journal:{tmp_path / 'j'}", tmp_path)
    study = open_study(space(), storage_at(place, pytest.fail))
    study.tell(ask(study, space()), 5.0)
    with open(tmp_path / "j", "a") as journal:
        journal.write('{"op_code":5,"worker')
    for _ in range(2):
        again = open_study(space(), storage_at(place, pytest.fail))
        again.tell(ask(again, space()), 6.0)
    assert [trial.value for trial in again.get_trials()] == [5.0, 6.0, 6.0]
