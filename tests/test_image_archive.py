"""A tar archive gives the same images as its folder; a truncated one is refused."""

import tarfile
from pathlib import Path

import pytest
import torch
from image_sets import CLASSES, TRAIN, VAL, archive, config_of

from cnnjepa.data.open import open_sources
from cnnjepa.schemas import (
    ConfigError,
    FolderData,
)


@pytest.mark.parametrize("name", ["set.tar", "set.tar.gz", "set.tgz"])
@pytest.mark.parametrize("inside", ["", "./"])
def test_an_archive_is_the_directory(image_folder: Path, tmp_path: Path, name: str, inside: str) -> None:
    directory = open_sources(config_of(image_folder))
    packed = open_sources(config_of(archive(image_folder, tmp_path / name, inside)))
    for split, count in (("train", TRAIN), ("val", VAL)):
        one, other = directory[split], packed[split]
        assert other.class_names == one.class_names == list(CLASSES)
        assert torch.equal(one.labels, torch.arange(3).repeat_interleave(count))
        assert torch.equal(other.labels, one.labels)
        assert other.fingerprint() == one.fingerprint()
        for index in range(3 * count):
            assert torch.equal(other.load(index), one.load(index))
            assert other.name(index).endswith(one.name(index).removeprefix(f"{image_folder}/"))


@pytest.mark.parametrize("name", ["set.tar", "set.tar.gz"])
def test_a_folder_around_the_splits_in_an_archive_is_looked_through(
    image_folder: Path, tmp_path: Path, name: str
) -> None:
    packed = open_sources(config_of(archive(image_folder, tmp_path / name, inside="deep/animals/")))
    directory = open_sources(config_of(image_folder))
    for split in ("train", "val"):
        assert torch.equal(packed[split].labels, directory[split].labels)
        assert torch.equal(packed[split].load(3), directory[split].load(3))
        assert packed[split].name(0).endswith(f"deep/animals/{split}/ant/0.JPEG")


def test_a_folder_around_the_splits_does_not_change_the_fingerprint(image_folder: Path, tmp_path: Path) -> None:
    packed = open_sources(config_of(archive(image_folder, tmp_path / "set.tar", inside="animals/")))
    assert packed["train"].fingerprint() == open_sources(config_of(image_folder))["train"].fingerprint()


@pytest.mark.parametrize("name", ["set.tar", "set.tar.gz"])
def test_a_truncated_archive_is_an_error_naming_it(image_folder: Path, tmp_path: Path, name: str) -> None:
    whole = archive(image_folder, tmp_path / name)
    with tarfile.open(whole) as tar:
        inside = tar.getmembers()[9].offset_data + 100
    size = whole.stat().st_size // 2 if name.endswith(".gz") else inside
    whole.write_bytes(whole.read_bytes()[:size])
    with pytest.raises(ConfigError, match=f"archive .*{name} cannot be read"):
        open_sources(config_of(whole))


@pytest.mark.parametrize("into_header", [0, 100])
def test_an_archive_cut_between_two_images_is_an_error_naming_it(
    image_folder: Path, tmp_path: Path, into_header: int
) -> None:
    whole = archive(image_folder, tmp_path / "set.tar")
    with tarfile.open(whole) as tar:
        cut = tar.getmembers()[-2].offset + into_header
    whole.write_bytes(whole.read_bytes()[:cut])
    with pytest.raises(ConfigError, match=r"archive .*set\.tar cannot be read"):
        open_sources(config_of(whole))


@pytest.mark.medium
def test_the_photographs_beside_the_repository_are_read(photographs: Path) -> None:
    sources = open_sources(FolderData(path=photographs, image_size=64))
    for split, count in (("train", 37_000), ("val", 5_000)):
        labels = sources[split].labels
        assert labels.numel() == count
        assert len(sources[split].class_names) == 100
        assert torch.equal(labels.bincount(minlength=100), torch.full((100,), count // 100))
        for index in (0, count // 2, count - 1):
            assert sources[split].load(index).shape == (3, 64, 64)
    assert sources["train"].class_names == sources["val"].class_names
