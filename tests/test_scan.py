"""Scans: a directory and a tar of it give the same images, and what is left out is counted and named by reason."""

import gzip
import hashlib
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from scanned_sets import IMAGES, config_of, png, root, tar_of
from typer.testing import CliRunner

from cnnjepa.cli.app import app
from cnnjepa.data import open_data
from cnnjepa.data.archive import Tar
from cnnjepa.data.open import open_sources
from cnnjepa.data.readers import Directory
from cnnjepa.errors import ImageError
from cnnjepa.measuring.doctor import examine
from cnnjepa.schemas import ConfigError, load_config
from cnnjepa.training.pretrain import pretrain
from cnnjepa.training.watcher import RunPlan, Watcher

__all__ = ["root"]  # a fixture


def lines_of(path: Path) -> list[str]:
    return open_sources(config_of(path)).left_out.lines()


def paths_of(path: Path) -> list[str]:
    reader = Tar(path) if path.is_file() else Directory(path)
    return [entry.path for entry in reader.scan().entries]


def refusal(path: Path, **settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        open_sources(config_of(path, **settings))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def spoil(root: Path) -> list[str]:
    """Something of nearly every reason; gives the lines that are due."""
    cat = root / "train" / "cat"
    (cat / "part2").mkdir()
    for i in (0, 1):
        (cat / f"{i}.png").rename(cat / "part2" / f"{i}.png")
    (cat / "2.png").rename(cat / "2.fits")
    (cat / "notes.txt").touch()
    (root / "train" / "loose.png").write_bytes(png(1))
    (root / "test" / "cat").mkdir(parents=True)
    (root / "test" / "cat" / "0.png").write_bytes(png(1))
    (root / "train" / "bird").mkdir()
    (root / "train" / "bird" / "0.psd").touch()
    (root / "train" / ".ipynb_checkpoints").mkdir()
    (root / "train" / ".ipynb_checkpoints" / "0.png").write_bytes(png(1))
    (cat / ".5.png").touch()
    (cat / "._5.png").touch()
    (root / "__MACOSX").mkdir()
    (root / "__MACOSX" / "._0.png").touch()
    (root / "train" / "dog" / "up").symlink_to("../..")
    os.mkfifo(cat / "pipe.png")
    return [
        "3 without an image's ending (.psd 1, .fits 1, .txt 1): "
        "train/bird/0.psd, train/cat/2.fits, train/cat/notes.txt",
        "1 in a split but in no class's folder: train/loose.png",
        "1 outside the two splits: test/cat/0.png",
        "1 class folder(s) without any image: train/bird/",
        "1 link(s) to a folder that holds them: train/dog/up/",
        "2 hidden (their names begin with a dot): train/.ipynb_checkpoints/, train/cat/.5.png",
        "2 metadata of macOS (._*, __MACOSX): __MACOSX/, train/cat/._5.png",
        "1 not regular (pipe, socket, device): train/cat/pipe.png",
    ]


def in_order(lines: list[str]) -> list[str]:
    """Lines with their examples sorted, which come in the order of the walk."""
    return [f"{head}: {', '.join(sorted(names.split(', ')))}" for head, names in (line.split(": ") for line in lines)]


@pytest.mark.parametrize("kind", ["directory", "set.tar", "set.tar.gz"])
def test_everything_that_is_left_out_is_counted_and_named(root: Path, kind: str) -> None:
    due = spoil(root)
    path = root if kind == "directory" else tar_of(root, kind)
    sources = open_sources(config_of(path))
    assert in_order(sources.left_out.lines()) == due
    assert sources["train"].labels.tolist() == [0] * (IMAGES - 1) + [1] * IMAGES


def test_a_whole_set_leaves_nothing_out_and_keeps_its_fingerprint(root: Path) -> None:
    for path in (root, tar_of(root), tar_of(root, "set.tgz")):
        sources = open_sources(config_of(path))
        assert sources.left_out.lines() == [] and sources.lost == [] and sources.notes == []
        assert sources["train"].fingerprint() == open_sources(config_of(root))["train"].fingerprint()
        assert open_data(config_of(path)).notes == []


def test_fingerprints_are_of_classes_names_and_sizes(root: Path) -> None:
    """Written out here, because runs are named by them."""
    for split, count in (("train", IMAGES), ("val", IMAGES // 2)):
        digest = hashlib.sha256()
        for name in ("cat", "dog"):
            for i in range(count):
                size = (root / split / name / f"{i}.png").stat().st_size
                digest.update(f"{split}/{name}/{i}.png\0{size}\n".encode())
        assert open_sources(config_of(root))[split].fingerprint() == digest.hexdigest()


# --- Links and duplicates in archives -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["set.tar", "set.tar.gz"])
def test_links_in_an_archive_are_followed_as_in_a_directory(root: Path, name: str) -> None:
    cat, dog = root / "train" / "cat", root / "train" / "dog"
    os.link(cat / "0.png", cat / "hard.png")
    (dog / "soft.png").symlink_to("0.png")
    (dog / "over.png").symlink_to("../cat/1.png")
    (dog / "twice.png").symlink_to("soft.png")
    (root / "blobs").mkdir()
    (root / "blobs" / "abc123").write_bytes(png(77))
    (dog / "blob.png").symlink_to("../../blobs/abc123")
    (root / "train" / "fox").symlink_to("../store/fox")
    (root / "store" / "fox").mkdir(parents=True)
    (root / "store" / "fox" / "0.png").write_bytes(png(78))
    directory, archive = open_sources(config_of(root)), open_sources(config_of(tar_of(root, name)))
    for split in ("train", "val"):
        assert archive[split].labels.tolist() == directory[split].labels.tolist()
        assert archive[split].fingerprint() == directory[split].fingerprint()
        for index in range(directory[split].labels.numel()):
            assert torch.equal(archive[split].load(index), directory[split].load(index))
    assert directory["train"].labels.tolist() == [0] * 7 + [1] * 10 + [2]
    ending = "1 without an image's ending (none 1): blobs/abc123"
    assert (
        archive.left_out.lines() == directory.left_out.lines() == [ending, "1 outside the two splits: store/fox/0.png"]
    )


@pytest.mark.parametrize("name", ["set.tar", "set.tar.gz"])
def test_of_two_members_of_one_name_the_later_counts(root: Path, name: str) -> None:
    path = tar_of(root, "first.tar")
    newer = png(99)
    with tarfile.open(path, "a") as tar:
        for i in range(4):
            member = tarfile.TarInfo(f"./train/cat/{i}.png")
            member.size = len(newer)
            tar.addfile(member, io.BytesIO(newer))
    if name.endswith("gz"):
        root.with_name(name).write_bytes(gzip.compress(path.read_bytes()))
        path = root.with_name(name)
    source = open_sources(config_of(path))["train"]
    assert source.labels.numel() == 2 * IMAGES
    assert source.read(3) == newer and source.read(4) == (root / "train" / "cat" / "4.png").read_bytes()  # type: ignore[attr-defined]
    assert lines_of(path) == [
        "4 replaced by a later file of the same name in the archive: "
        "train/cat/0.png, train/cat/1.png, train/cat/2.png, …"
    ]


@pytest.mark.parametrize("kind", ["directory", "set.tar", "set.tar.gz"])
def test_a_link_to_nothing_is_an_unreadable_image(root: Path, kind: str) -> None:
    (root / "train" / "cat" / "x.png").symlink_to("nowhere.png")
    (root / "train" / "dog" / "y.png").symlink_to("y.png")
    path = root if kind == "directory" else tar_of(root, kind)
    config = config_of(path, resident="always", on_error="skip")
    data = open_data(config)
    assert data.train.labels.tolist() == [0] * IMAGES + [1] * IMAGES
    assert len(data.skipped) == 2 and data.skipped[0].startswith(f"{path}/train/cat/x.png cannot be read (")
    assert data.notes == ["files left out: 2 link(s) to nothing: train/cat/x.png, train/dog/y.png"]
    with pytest.raises(ImageError, match=r"train/cat/x\.png cannot be read"):
        open_data(config_of(path, resident="always"))
    checked = CliRunner().invoke(app, ["data", "check", str(path)])
    assert checked.exit_code == 1 and f"{path}/train/cat/x.png cannot be read (" in checked.output
    assert "2 cannot be read; remove them, or train with --set on_error=skip" in checked.output


def test_a_class_that_cannot_be_opened_stops_a_run_unless_it_may_be_skipped(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "train" / "fox").symlink_to("/gone/fox")
    scandir = os.scandir

    def closed(path: Any) -> Any:
        if str(path).endswith(("train/cat", "lost+found")):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    (root / "lost+found").mkdir()
    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(ImageError) as caught:
        open_sources(config_of(root, val_split="train"))
        open_data(config_of(root, val_split="train"))
    assert "train/cat cannot be opened (Permission denied)" in str(caught.value) or "train/fox" in str(caught.value)
    assert "and 1 others: `cnnjepa data check PATH` names them" in str(caught.value)
    sources = open_sources(config_of(root, val_split="train"))
    assert sorted(sources.lost) == [
        f"{root}/train/cat cannot be opened (Permission denied)",
        f"{root}/train/fox cannot be read (No such file or directory)",
    ]
    assert "2 folder(s) that cannot be opened: lost+found/, train/cat/" in sources.left_out.lines()


# --- Layouts ------------------------------------------------------------------------------------------------------


def place(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(png(len(path)))
    return root


def test_a_layout_that_is_another_is_named_with_the_cure(tmp_path: Path) -> None:
    apart = place(tmp_path / "apart", "a/train/n1/0.png", "b/val/n1/0.png")
    assert refusal(apart).endswith("train and val lie in different folders (a, b): put them into one")
    tif = place(tmp_path / "tif", "train/n1/0.psd", "val/n1/0.psd")
    assert refusal(tif).endswith(
        "their names must end in .jpg, .jpeg, .jfif, .png, .webp, .gif, .tif, .tiff, .bmp, .npy, .avif, .heic, .heif. "
        "Left out: 2 without an image's ending (.psd 2): "
        "train/n1/0.psd, val/n1/0.psd"
    )
    (place(tmp_path / "empty", "train/n1/0.png") / "val" / "n1").mkdir(parents=True)
    assert refusal(tmp_path / "empty").startswith("data.val_split 'val' holds no images")


def test_the_folder_that_holds_both_splits_is_found_among_others(tmp_path: Path) -> None:
    root = place(tmp_path / "more", "docs/img/0.png", *(f"data/{s}/{c}/0.png" for s in ("train", "val") for c in "ab"))
    sources = open_sources(config_of(root))
    assert sources["train"].name(1) == f"{root}/data/train/b/0.png"
    assert sources.left_out.lines() == ["1 outside the two splits: docs/img/0.png"]
    place(root, *(f"other/{split}/a/0.png" for split in ("train", "val")))
    assert "several data sets lie side by side (data/, other/); give one of them" in refusal(root)


# --- What a person is told ----------------------------------------------------------------------------------------


def test_validating_on_the_training_images_is_said(root: Path) -> None:
    said = "the validation images are the training images (train and train hold the same files)"
    (note, _) = open_data(config_of(root, val_split="train")).notes
    assert note.startswith(said)
    for file in (root / "val").rglob("*.png"):
        file.unlink()
    for name in ("cat", "dog"):
        (root / "val" / name).rmdir()
    (root / "val").rmdir()
    (root / "val").symlink_to("train")
    assert (
        open_data(config_of(root)).notes[0].startswith("the validation images are the training images (train and val")
    )


def test_classes_without_a_readable_image_are_said(root: Path) -> None:
    for i in range(IMAGES):
        (root / "train" / "dog" / f"{i}.png").write_bytes(b"no image")
    place(root, *(f"train/fox/{i}.png" for i in range(3)))
    data = open_data(config_of(root, resident="always", on_error="skip"))
    assert data.notes == ["no training image of 1 of 3 classes: dog", "no validation image of 1 of 3 classes: fox"]
    checked = CliRunner().invoke(app, ["data", "check", str(root)])
    assert "no image of class dog in train can be read" in checked.output


class Listening(Watcher):
    def started(self, plan: RunPlan) -> None:
        self.said = plan.warnings


@pytest.mark.medium
def test_a_run_and_the_doctor_begin_with_what_is_left_out(root: Path, tmp_path: Path) -> None:
    (root / "train" / "cat" / "0.png").rename(root / "train" / "cat" / "0.psd")
    said = "files left out: 1 without an image's ending (.psd 1): train/cat/0.psd"
    settings = [
        "image_size=32",
        "batch_size=4",
        "runtime.epochs=1",
        "warmup_epochs=0",
        "floors=false",
        "val_images=null",
        "train_images=null",
    ]
    config = load_config("smoke", data=root, overrides=settings)
    watcher = Listening()
    pretrain(config, tmp_path / "run", watcher=watcher)
    assert said in watcher.said
    found = [finding.value for finding in examine(config) if finding.name == "data"]
    assert said in found


def test_names_that_are_not_utf8_are_read_and_printed(root: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    try:
        (root / "train" / "cat" / name).write_bytes(png(5))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    for path in (root, tar_of(root)):
        source = open_sources(config_of(path))["train"]
        assert source.name(IMAGES) == f"{path}/train/cat/caf\\xe9.png" and source.load(IMAGES).shape == (3, 16, 16)
        assert len(source.fingerprint()) == 64
