"""A folder of images: its images, its fingerprint, its subsets, and what is refused."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from image_sets import TRAIN, VAL, archive, config_of, picture, refused, write_set

from cnnjepa.data import open_data
from cnnjepa.data.open import open_sources, refuse_part_of_a_batch
from cnnjepa.data.source import stratified
from cnnjepa.schemas import ConfigError, FolderData


def test_images_are_uint8_rgb_as_written(image_folder: Path) -> None:
    source = open_sources(config_of(image_folder))["train"]
    place = next(i for i in range(TRAIN) if source.name(i).endswith("ant/1.png"))
    image = source.load(place)
    assert image.dtype == torch.uint8 and image.shape[0] == 3
    assert torch.equal(image, picture(2, image.shape[1], image.shape[2]))


def test_the_fingerprint_follows_names_and_sizes_but_not_the_place(image_folder: Path, tmp_path: Path) -> None:
    moved = write_set(tmp_path / "elsewhere")
    first = open_sources(config_of(image_folder))["train"].fingerprint()
    assert open_sources(config_of(moved))["train"].fingerprint() == first
    file = moved / "train" / "ant" / "0.JPEG"
    file.write_bytes(file.read_bytes() + b"x")
    changed = open_sources(config_of(moved))["train"].fingerprint()
    file.rename(file.with_name("9.JPEG"))
    renamed = open_sources(config_of(moved))["train"].fingerprint()
    assert len({first, changed, renamed}) == 3
    assert open_data(config_of(moved)).fingerprint != open_data(config_of(image_folder)).fingerprint


def test_other_files_and_loose_images_are_not_taken(image_folder: Path, tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    (root / "train" / "ant" / "notes.txt").write_text("no image")
    (root / "train" / "loose.png").write_bytes((root / "train" / "ant" / "1.png").read_bytes())
    assert open_sources(config_of(root))["train"].labels.numel() == 3 * TRAIN


def test_splits_may_have_other_names(image_folder: Path) -> None:
    swapped = open_sources(config_of(image_folder, train_split="val", val_split="train"))
    assert swapped["train"].labels.numel() == 3 * VAL


def test_a_missing_place_is_refused(tmp_path: Path) -> None:
    assert "data.path is not set" in refused(FolderData())
    message = refused(config_of(tmp_path / "none"))
    assert f"{tmp_path / 'none'} does not exist" in message and "--data" in message
    (tmp_path / "list.csv").write_text("a")
    assert "is a file; it must be" in refused(config_of(tmp_path / "list.csv"))


def test_an_empty_place_is_refused(tmp_path: Path) -> None:
    assert "holds no images; their names must end in .jpg" in refused(config_of(tmp_path))
    (tmp_path / "train" / "ant").mkdir(parents=True)
    assert "holds no images" in refused(config_of(tmp_path))
    assert "holds no images" in refused(config_of(archive(tmp_path / "train", tmp_path / "empty.tar")))


def test_an_unknown_split_is_refused_with_the_nearest(image_folder: Path) -> None:
    message = refused(config_of(image_folder, val_split="valid"))
    assert "data.val_split 'valid'" in message and "it holds train, val" in message and "nearest is 'val'" in message


def test_one_class_is_no_label_and_refused_as_one(tmp_path: Path) -> None:
    root = write_set(tmp_path / "one", classes=("ant",))
    data = open_data(config_of(root))
    assert not data.labelled and data.found == "5 training and 2 validation images without labels (train/ and val/)"
    message = refused(config_of(root, labels="folders"))
    assert f"data.labels=folders: {root}/train/ holds images of 1 class(es)" in message
    (root / "train" / "bee").mkdir()  # a class whose images are elsewhere, or of another format
    assert "all 5 training images are of one class (ant)" in refused(config_of(root))


def test_fewer_images_than_a_batch_are_refused(image_folder: Path) -> None:
    message = refused(config_of(image_folder), 16)
    assert "15 training images are fewer than a global batch of 16 (runtime.batch_size 16 on 1 process)" in message
    assert "a partial batch is dropped; runtime.batch_size must be at most 15" in message
    message = refused(config_of(image_folder), 4, 4)
    assert "a global batch of 16 (runtime.batch_size 4 on 4 processes)" in message and message.endswith(
        "must be at most 3"
    )
    assert refused(config_of(image_folder), 2, 8).endswith("use at most 7 of 8 processes")
    with pytest.raises(ConfigError, match=r"one: 1 training image is fewer than .* dropped; give more images$"):
        refuse_part_of_a_batch("one", 1, 2, 1)
    open_data(config_of(image_folder), 15)
    open_data(config_of(image_folder), 3, 5)


def test_a_class_that_training_lacks_is_refused(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    (root / "val" / "ant").rename(root / "val" / "elk")
    assert "classes that train lacks: elk" in refused(config_of(root))


def test_more_images_than_there_are_are_refused(image_folder: Path) -> None:
    message = refused(config_of(image_folder, train_images=16))
    assert "data.train_images 16 is more than the 15 images" in message and "it must be 2 to 15" in message


def test_a_subset_is_even_over_classes(image_folder: Path) -> None:
    data = open_data(config_of(image_folder, train_images=7, val_images=3))
    assert sorted(Counter(data.train.labels.tolist()).values()) == [2, 2, 3]
    assert data.val.labels.tolist() == [0, 1, 2]
    assert data.train.name(0).endswith("train/ant/0.JPEG")
    assert data.classes == 3


@given(labels=st.lists(st.integers(0, 5), min_size=1, max_size=40), data=st.data())
def test_stratified_takes_the_first_of_each_class_in_turn(labels: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(labels)))
    chosen = stratified(torch.tensor(labels), count).tolist()
    assert chosen == sorted(set(chosen)) and len(chosen) == count
    taken, there = Counter(labels[i] for i in chosen), Counter(labels)
    for label in there:
        members = [i for i in range(len(labels)) if labels[i] == label]
        assert [i for i in chosen if labels[i] == label] == members[: taken[label]]
        # A class has fewer than another's only where it has no more.
        assert taken[label] == there[label] or taken[label] >= max(taken.values()) - 1


def test_stratified_refuses_more_than_there_are() -> None:
    with pytest.raises(ValueError, match="4 images asked for, 3 exist"):
        stratified(torch.tensor([0, 1, 1]), 4)
