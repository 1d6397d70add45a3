"""The kept index of a large set: it gives what a new scan gives, and notices what has changed."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from image_sets import CLASSES, archive, config_of, encoded, picture, write_set

from cnnjepa.data import index_cache
from cnnjepa.data.open import fingerprint_of, left_out_note, open_sources
from cnnjepa.data.source import Splits
from cnnjepa.errors import RunError
from cnnjepa.schemas import FolderData


@pytest.fixture
def indexes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Indexes of sets of any size are kept in a folder of the test."""
    monkeypatch.setenv("CNNJEPA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(index_cache, "LEAST_IMAGES", 1)
    return tmp_path / "cache" / "indexes"


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every set whose names are read."""
    made: list[Path] = []
    real = index_cache.make_index

    def counted(path: Path, config: FolderData) -> Any:
        made.append(path)
        return real(path, config)

    monkeypatch.setattr(index_cache, "make_index", counted)
    return made


def settled(root: Path) -> Path:
    """The set as if it had last been changed a minute ago."""
    then = time.time() - 60
    for path in (*root.rglob("*"), root):
        os.utime(path, (then, then))
    return root


def facts(config: FolderData) -> tuple[Any, ...]:
    sources: Splits = open_sources(config)
    images = [
        (source.name(i), int(source.labels[i]), source.load(i).sum().item())
        for source in sources.values()
        for i in range(source.labels.numel())
    ]
    names = [list(source.class_names) for source in sources.values()]
    return images, names, fingerprint_of(sources), sources.found, sources.notes, left_out_note(sources)


def as_directory(root: Path) -> Path:
    return root


def as_archive(root: Path) -> Path:
    return archive(root, root.with_suffix(".tar"))


def as_shards(root: Path) -> Path:
    (root.parent / "shards").mkdir()
    for split in ("train", "val"):
        archive(root / split, root.parent / "shards" / f"{split}-0.tar")
    return root.parent / "shards"


FORMS = [as_directory, as_archive, as_shards]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("settings", [{}, {"labels": "none", "groups": -1}], ids=["labels", "groups"])
def test_a_kept_index_gives_what_the_scan_gave(
    tmp_path: Path, indexes: Path, scans: list[Path], form: Callable[[Path], Path], settings: dict[str, Any]
) -> None:
    root = write_set(tmp_path / "set")
    (root / "train" / "notes.txt").write_text("no image")
    if settings:  # no group may be on both sides
        for name in CLASSES:
            (root / "val" / name).rename(root / "val" / f"other {name}")
    else:
        shutil.copytree(root / "train", root / "val", dirs_exist_ok=True)  # of which there is a note
    config = config_of(settled(form(settled(root))), **settings)
    first, again = facts(config), facts(config)
    assert again == first and len(scans) == 1 and len(list(indexes.iterdir())) == 1
    one, other = (open_sources(config)["train"].groups for _ in range(2))  # type: ignore[attr-defined]
    assert (one is None) == ("groups" not in settings) and (one is None or torch.equal(one, other))


def test_other_settings_have_an_index_of_their_own(tmp_path: Path, indexes: Path, scans: list[Path]) -> None:
    root = settled(write_set(tmp_path / "set"))
    labelled, bare = facts(config_of(root)), facts(config_of(root, labels="none"))
    assert len(scans) == 2 and labelled[1] != bare[1]
    assert (facts(config_of(root)), facts(config_of(root, labels="none"))) == (labelled, bare) and len(scans) == 2


def add(root: Path) -> None:
    (root / "train" / "ant" / "new.png").write_bytes(encoded(picture(99, 20, 20)))


def remove(root: Path) -> None:
    (root / "train" / "bee" / "1.png").unlink()


def change(root: Path) -> None:
    with open(root / "val" / "cow" / "1.png", "wb") as file:  # in place: the folder's time stays
        file.write(encoded(picture(98, 60, 60)))


def rename_class(root: Path) -> None:
    (root / "train" / "ant").rename(root / "train" / "anteater")
    (root / "val" / "ant").rename(root / "val" / "anteater")


def link_elsewhere(root: Path) -> None:
    shutil.rmtree(root / "train" / "cow")
    (root / "train" / "cow").symlink_to(root / "train" / "bee")


@pytest.mark.parametrize("changed", [add, remove, change, rename_class, link_elsewhere])
def test_a_change_of_a_directory_is_noticed(
    tmp_path: Path, indexes: Path, scans: list[Path], changed: Callable[[Path], None]
) -> None:
    root = settled(write_set(tmp_path / "set"))
    before = facts(config_of(root))
    changed(root)
    found = facts(config_of(root))
    shutil.rmtree(indexes)
    assert found == facts(config_of(root)) and found[0] != before[0] and found[2] != before[2]


@pytest.mark.parametrize("changed", [add, remove, change])
@pytest.mark.parametrize("form", [as_archive, as_shards])
def test_a_change_of_an_archive_is_noticed(
    tmp_path: Path, indexes: Path, form: Callable[[Path], Path], changed: Callable[[Path], None]
) -> None:
    root = write_set(tmp_path / "set")
    at = settled(form(root))
    then = at.stat().st_mtime
    before = facts(config_of(at))
    changed(root)
    if at.is_dir():
        shutil.rmtree(at)
    assert form(root) == at
    for path in (at, *at.rglob("*")):
        os.utime(path, (then, then))  # the time alone does not tell
    assert facts(config_of(at))[2] != before[2]


def test_an_added_shard_is_noticed(tmp_path: Path, indexes: Path) -> None:
    root = write_set(tmp_path / "set")
    at = settled(as_shards(root))
    count = open_sources(config_of(at))["train"].labels.numel()
    archive(root / "train", at / "train-1.tar")
    assert open_sources(config_of(at))["train"].labels.numel() == 2 * count


def test_a_changed_table_is_noticed(tmp_path: Path, indexes: Path, scans: list[Path]) -> None:
    root, table = settled(write_set(tmp_path / "set")), tmp_path / "labels.csv"

    def write(label: str) -> None:
        rows = [f"{path.relative_to(root)},{label if '0' in path.name else 'x'}" for path in root.rglob("*.*")]
        table.write_text("\n".join(["path,label", *rows]) + "\n")
        os.utime(table, (1e9, 1e9))

    write("y")
    names = [list(open_sources(config_of(root, labels=str(table)))["train"].class_names) for _ in range(2)]
    assert names == [["x", "y"]] * 2 and len(scans) == 1
    write("z")
    assert list(open_sources(config_of(root, labels=str(table)))["train"].class_names) == ["x", "z"]


def test_an_image_that_changes_beyond_the_sample_stops_the_run_and_deletes_the_index(
    tmp_path: Path, indexes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = settled(write_set(tmp_path / "set"))
    facts(config_of(root))
    monkeypatch.setattr(index_cache, "_SAMPLE", 1)
    change(root)
    sources = open_sources(config_of(root))
    with pytest.raises(RunError, match=r"val/cow/1\.png has .* bytes and had .* run the same command again"):
        for index in range(6):
            sources["val"].load(index)
    assert list(indexes.iterdir()) == []
    assert open_sources(config_of(root))["val"].load(5).shape == (3, 60, 60)


def test_a_set_that_was_changed_just_now_is_not_kept(tmp_path: Path, indexes: Path) -> None:
    facts(config_of(write_set(tmp_path / "set")))
    assert not indexes.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no index", None])
def test_a_damaged_index_is_replaced(tmp_path: Path, indexes: Path, scans: list[Path], content: bytes | None) -> None:
    root = settled(write_set(tmp_path / "set"))
    first = facts(config_of(root))
    (file,) = indexes.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert facts(config_of(root)) == first and len(scans) == 2
    assert facts(config_of(root)) == first and len(scans) == 2


@pytest.mark.parametrize("place", [8, 15, 20, 30, b'"<i8"', b'"class_names"'])
def test_an_index_with_a_damaged_head_is_replaced(
    tmp_path: Path, indexes: Path, scans: list[Path], place: int | bytes
) -> None:
    root = settled(write_set(tmp_path / "set"))
    first = facts(config_of(root))
    (file,) = indexes.iterdir()
    content = bytearray(file.read_bytes())
    content[place if isinstance(place, int) else content.index(place) + 2] ^= 0x10
    file.write_bytes(content)
    assert facts(config_of(root)) == first and len(scans) == 2


def test_an_index_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, indexes: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("CNNJEPA_CACHE", str(tmp_path / "file"))
    sources = open_sources(config_of(settled(write_set(tmp_path / "set"))))
    assert sources.notes == [
        f"the index of {tmp_path / 'set'} cannot be kept for the next run (Not a directory)"
    ]  # fmt: skip


def test_small_sets_and_compressed_archives_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, indexes: Path
) -> None:
    root = settled(write_set(tmp_path / "set"))
    packed = archive(root, tmp_path / "set.tar.gz")
    os.utime(packed, (1e9, 1e9))
    facts(config_of(packed))
    monkeypatch.setattr(index_cache, "LEAST_IMAGES", 20_000)
    facts(config_of(root))
    assert not indexes.exists()


def test_indexes_that_were_not_opened_for_long_are_deleted_and_the_oldest_beyond_a_size(
    indexes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_cache, "_MOST_BYTES", 250)
    indexes.mkdir(parents=True)
    now = time.time()
    ages = {"today.index": 0.5, "also.index": 0.9, "week.index": 7.0, "month.index": 30.0, "older.npz": 61.0}
    for name, days in ages.items():
        (indexes / name).write_bytes(bytes(100))
        os.utime(indexes / name, (now - days * 86_400,) * 2)
    index_cache.prune(indexes, now)
    assert sorted(file.name for file in indexes.iterdir()) == ["also.index", "today.index"]
    monkeypatch.setattr(index_cache, "_MOST_BYTES", 150)
    index_cache.prune(indexes, now)
    assert len(list(indexes.iterdir())) == 2  # a run may have just opened them


def test_opening_a_kept_index_counts_as_use_and_writing_one_prunes(
    indexes: Path, tmp_path: Path, scans: list[Path]
) -> None:
    root = settled(write_set(tmp_path / "set"))
    indexes.mkdir(parents=True)
    (indexes / "0.npz").write_bytes(b"an index of an earlier version")
    os.utime(indexes / "0.npz", (time.time() - 61 * 86_400,) * 2)
    open_sources(config_of(root))
    (file,) = indexes.iterdir()
    os.utime(file, (time.time() - 1e6,) * 2)
    sources = open_sources(config_of(root))
    assert len(scans) == 1 and time.time() - file.stat().st_mtime < 100
    file.unlink()  # while it is mapped
    assert sources["train"].load(0).shape[0] == 3
