"""Folders and archives as they are found in practice: every image is used or named, and `data check` says so."""

import gzip
import os
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from image_sets import archive, config_of, encoded, picture, refused
from typer.testing import CliRunner

from cnnjepa.cli.app import app
from cnnjepa.data import open_data
from cnnjepa.data.open import open_sources
from cnnjepa.data.scan import MOST_LINKS_TO_A_FOLDER


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """40 training and 10 validation images of cat and of dog."""
    for number, (split, count) in enumerate((("train", 40), ("val", 10))):
        for other, name in enumerate(("cat", "dog")):
            (tmp_path / "D" / split / name).mkdir(parents=True)
            for i in range(count):
                content = encoded(picture(200 * number + 100 * other + i, 16, 16))
                (tmp_path / "D" / split / name / f"{i:03d}.png").write_bytes(content)
    return tmp_path / "D"


def checked(path: Path) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["data", "check", str(path)])
    return found.exit_code, " ".join(found.output.split())


def half_a_class_in_a_folder(root: Path) -> None:
    (root / "train" / "cat" / "part2").mkdir()
    for i in range(20):
        (root / "train" / "cat" / f"{i:03d}.png").rename(root / "train" / "cat" / "part2" / f"{i:03d}.png")


def a_hidden_folder(root: Path) -> None:
    (root / "train" / ".ipynb_checkpoints").mkdir()
    (root / "train" / ".ipynb_checkpoints" / "0.png").write_bytes((root / "train" / "cat" / "000.png").read_bytes())


def links(root: Path) -> None:
    for i in range(5):
        os.link(root / "train" / "cat" / f"00{i}.png", root / "train" / "cat" / f"h{i}.png")
        (root / "train" / "dog" / f"s{i}.png").symlink_to(f"00{i}.png")


def metadata_of_macos(root: Path) -> None:
    for file in list((root / "train").rglob("*.png")):
        file.with_name(f"._{file.name}").write_bytes(b"\0\5\x16\7" + bytes(90))
    (root / "__MACOSX" / "train").mkdir(parents=True)
    (root / ".DS_Store").touch()


CASES: list[tuple[Callable[[Path], None], int, str]] = [
    (half_a_class_in_a_folder, 80, "80 training and 20 validation images of 2 classes"),
    (a_hidden_folder, 80, "1 hidden (their names begin with a dot): train/.ipynb_checkpoints"),
    (links, 90, "of 2 classes"),
    (metadata_of_macos, 80, "81 metadata of macOS (._*, __MACOSX): "),
]


@pytest.mark.parametrize("kind", ["directory", "D.tar", "D.tgz"])
@pytest.mark.parametrize(("spoil", "train", "said"), CASES, ids=[case[0].__name__ for case in CASES])
def test_what_is_used_and_what_is_left_out(
    root: Path, kind: str, spoil: Callable[[Path], None], train: int, said: str
) -> None:
    spoil(root)
    path = root
    if kind != "directory":
        path = root.with_name(kind)
        with tarfile.open(path, "w:gz" if kind.endswith("gz") else "w") as tar:
            for item in sorted(root.iterdir()):
                tar.add(item, item.name)
    code, output = checked(path)
    assert code == 0 and f"{train + 20} images can be read (train {train}, val 20)" in output
    assert f"{path}: {train} training and 20 validation images of 2 classes" in output
    assert said in output
    sources = open_sources(config_of(path))
    assert list(sources["train"].class_names) == ["cat", "dog"]


def test_archives_that_were_joined_are_read_to_the_last(root: Path, tmp_path: Path) -> None:
    parts = []
    for split in ("train", "val"):
        with tarfile.open(tmp_path / f"{split}.tar", "w") as tar:
            tar.add(root / split, split)
        parts.append((tmp_path / f"{split}.tar").read_bytes())
    (tmp_path / "both.tar").write_bytes(b"".join(parts))
    (tmp_path / "both.tar.gz").write_bytes(b"".join(gzip.compress(part) for part in parts))
    directory = open_data(config_of(root))
    for name in ("both.tar", "both.tar.gz"):
        data = open_data(config_of(tmp_path / name))
        assert data.fingerprint == directory.fingerprint and data.val.labels.numel() == 20
        assert data.val.load(19).equal(directory.val.load(19))


def test_a_damaged_header_is_not_the_end_of_an_archive(root: Path, tmp_path: Path) -> None:
    path = archive(root, tmp_path / "D.tar")
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        middle = tar.getmembers()[50].offset
    content[middle + 20] ^= 1
    path.write_bytes(content)
    assert f"cannot be read (the header at byte {middle:,} is damaged (bad checksum))" in refused(config_of(path))
    (tmp_path / "D.tar.gz").write_bytes(gzip.compress(bytes(content)))
    assert f"the header at byte {middle:,} is damaged" in refused(config_of(tmp_path / "D.tar.gz"))
    padded = archive(root, tmp_path / "padded.tar")
    padded.write_bytes(padded.read_bytes() + b"\xff" * 4096)  # behind the end mark
    assert open_data(config_of(padded)).train.labels.numel() == 80


@pytest.mark.parametrize("kind", ["directory", "D.tar"])
def test_links_that_make_endless_or_very_many_paths_end(root: Path, kind: str) -> None:
    for name in ("a", "b"):
        (root / "train" / "cat" / name).symlink_to(".")
    for level in range(40):
        (root / "more" / str(level)).mkdir(parents=True)
        for name in ("a", "b"):
            (root / "more" / str(level) / name).symlink_to(f"../{level + 1}")
    (root / "more" / "40").mkdir()
    path = root
    if kind != "directory":
        path = root.with_name(kind)
        with tarfile.open(path, "w") as tar:
            for item in sorted(root.iterdir()):
                tar.add(item, item.name)
    start = time.monotonic()
    sources = open_sources(config_of(path))
    assert time.monotonic() - start < 20
    assert sources["train"].labels.numel() == 80
    lines = sources.left_out.lines()
    assert any(line.startswith("2 link(s) to a folder that holds them: train/cat/a/") for line in lines)
    assert any("link(s) to a folder that was read many times before" in line for line in lines)


def test_a_class_may_be_linked_from_several_places(root: Path) -> None:
    for number in range(3):
        (root / "train" / f"copy{number}").symlink_to("cat")
        (root / "val" / f"copy{number}").symlink_to("cat")
    data = open_data(config_of(root))
    assert data.classes == 5 and data.train.labels.numel() == 200 and data.notes == []
    assert MOST_LINKS_TO_A_FOLDER >= 100
