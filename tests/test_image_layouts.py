"""Layouts of folders and archives: which images are for training and validation, and which classes they have."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from image_sets import archive, config_of, encoded, picture, refused

from cnnjepa.data import DataSet, open_data
from cnnjepa.data.open import open_sources
from cnnjepa.data.pack import pack, prepare
from cnnjepa.data.split_off import split_off_groups
from cnnjepa.data.verify import verify

KINDS = ["directory", "set.tar", "set.tar.gz"]


def lay(root: Path, *paths: str) -> Path:
    """Images of different sizes in bytes at these paths; text at paths that do not end in .png."""
    for number, path in enumerate(paths):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".png":
            file.write_bytes(encoded(picture(number, 8 + number % 5, 9)))
    return root


def opened(root: Path, kind: str = "directory", **settings: Any) -> DataSet:
    path = root if kind == "directory" else archive(root, root.with_name(kind))
    return open_data(config_of(path, **settings))


def classes_of(data: DataSet, split: str = "train") -> list[str]:
    source = getattr(data, split)
    return [source.class_names[label] for label in source.labels.tolist()]


def names_of(data: DataSet, split: str = "train") -> list[str]:
    source = getattr(data, split)
    return [Path(source.name(index)).name for index in range(source.labels.numel())]


# --- Classes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_tiny_imagenet_is_read_as_it_is_distributed(tmp_path: Path, kind: str) -> None:
    root = lay(
        tmp_path / "tiny", *(f"train/{c}/images/{c}_{i}.png" for c in ("n01", "n02") for i in range(3)),
        *(f"val/images/val_{i}.png" for i in range(4)), "test/images/test_0.png",
    )  # fmt: skip
    rows = [f"val_{i}.png\t{'n02' if i % 2 else 'n01'}\t0\t0\t62\t62\n" for i in range(4)]
    (root / "val" / "val_annotations.txt").write_text("".join(rows))
    (root / "train" / "n01" / "n01_boxes.txt").write_text("n01_0.png\t0\t0\t62\t62\n")
    data = opened(root, kind)
    assert classes_of(data) == ["n01"] * 3 + ["n02"] * 3 and classes_of(data, "val") == ["n01", "n02"] * 2
    assert data.found == (
        "6 training and 4 validation images of 2 classes (train/<class>/ and val/val_annotations.txt)"
    )
    assert data.notes == [
        "files left out: 1 without an image's ending (.txt 1): train/n01/n01_boxes.txt; "
        "1 outside the two splits: test/images/test_0.png"
    ]


def test_a_flat_validation_folder_takes_its_labels_from_imagenets_table(tmp_path: Path) -> None:
    paths = [f"train/{c}/{i}.png" for c in ("n01", "n02") for i in range(4)] + [f"val/ILSVRC_{i}.png" for i in range(3)]
    root = lay(tmp_path / "kaggle", *(f"ILSVRC/Data/{path}" for path in paths))
    rows = ["ImageId,PredictionString", "ILSVRC_0,n02 1 2 3 4 ", "ILSVRC_1,n01 1 2 3 4 n01 5 6 7 8 "]
    (root / "LOC_val_solution.csv").write_text("\n".join(rows))
    data = opened(root)
    assert classes_of(data, "val") == ["n02", "n01"] and names_of(data, "val") == ["ILSVRC_0.png", "ILSVRC_1.png"]
    (line,) = open_sources(config_of(root)).left_out.lines()
    assert line == "1 in the validation folder without labels: ILSVRC/Data/val/ILSVRC_2.png"


def test_a_flat_validation_folder_without_labels_is_left_out_and_a_part_held_out(tmp_path: Path) -> None:
    root = lay(tmp_path / "inet", *(f"train/{c}/{i}.png" for c in "ab" for i in range(10)), "val/1.png", "val/2.png")
    data = opened(root)
    assert classes_of(data) == ["a"] * 9 + ["b"] * 9 and classes_of(data, "val") == ["a", "b"]
    assert data.found == (
        "18 training and 2 validation images of 2 classes (train/<class>/); validation images held out from training: "
        "data.val_fraction=0.1, stratified by class"
    )
    assert data.notes == ["files left out: 2 in the validation folder without labels: val/1.png, val/2.png"]


@pytest.mark.parametrize("kind", KINDS)
def test_classes_without_splits_are_held_out_stratified(tmp_path: Path, kind: str) -> None:
    root = lay(tmp_path / "set", *(f"{c}/{i}.png" for c, n in (("cat", 20), ("dog", 10), ("elk", 2)) for i in range(n)))
    data = opened(root, kind)
    assert [classes_of(data, "val").count(name) for name in ("cat", "dog", "elk")] == [2, 1, 1]
    assert [classes_of(data).count(name) for name in ("cat", "dog", "elk")] == [18, 9, 1]
    assert data.fingerprint == opened(root).fingerprint
    assert opened(root, val_seed=1).fingerprint != data.fingerprint
    assert len(classes_of(opened(root, val_fraction=0.5), "val")) == 16
    nearly_all = opened(root, val_fraction=0.99)  # every class keeps a training image
    assert nearly_all.train.labels.tolist() == list(range(nearly_all.classes))


@pytest.mark.parametrize("kind", KINDS)
def test_classes_may_be_nested_as_in_places(tmp_path: Path, kind: str) -> None:
    names = ("a/airfield", "a/apartment/outdoor", "b/barn")
    root = lay(tmp_path / "places", *(f"{s}/{c}/{i}.png" for s in ("train", "val") for c in names for i in range(2)))
    data = opened(root, kind)
    assert data.train.class_names == list(names) and classes_of(data, "val") == [c for c in names for _ in range(2)]
    assert data.notes == []


def test_half_a_nested_class_in_a_folder_of_its_own_stays_in_its_class(tmp_path: Path) -> None:
    root = lay(tmp_path / "set", "cat/1.png", "cat/part2/2.png", "cat/part2/3.png", *(f"dog/{i}.png" for i in range(3)))
    assert opened(root).train.class_names == ["cat", "dog"]
    assert len(classes_of(opened(root))) + len(classes_of(opened(root), "val")) == 6


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    root = lay(tmp_path / "vehicles", *(f"{c}/{i}.png" for c in ("bus", "car", "train") for i in range(4)))
    data = opened(root)
    assert data.train.class_names == ["bus", "car", "train"] and data.train.labels.numel() == 9


def test_other_split_names_are_no_classes(tmp_path: Path) -> None:
    root = lay(tmp_path / "tin", *(f"{split}/a/{i}.png" for split in ("test", "val") for i in range(3)))
    assert "data.train_split 'train' is not in" in refused(config_of(root))
    assert open_data(config_of(root, train_split="test", labels="none")).train.labels.numel() == 3


# --- No labels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_masks_next_to_images_are_no_images(tmp_path: Path, kind: str) -> None:
    names = [f"day{number % 2}/{number}.png" for number in range(12)]
    root = lay(tmp_path / "set", *(f"{folder}/{name}" for folder in ("images", "masks") for name in names))
    data = opened(root, kind, labels="none")
    assert data.train.labels.numel() + data.val.labels.numel() == 12
    (said,) = [note for note in data.notes if note.startswith("files left out: ")]
    assert said.startswith("files left out: 12 masks of images, in a folder next to theirs: ")
    others = [
        f"{folder}/{start}{number}.png" for folder, start in (("images", ""), ("masks", "x")) for number in range(9)
    ]
    assert set(classes_of(opened(lay(tmp_path / "odd", *others)))) == {"images", "masks"}


def test_folders_taken_for_classes_are_named_with_the_way_out(tmp_path: Path) -> None:
    root = lay(tmp_path, *(f"day{number % 2}/{number}.png" for number in range(40)))
    said = "folders are taken for classes (day0, day1); if they are not, set data.labels=none"
    assert said in opened(root).notes
    assert said not in opened(root, labels="folders").notes


@pytest.mark.parametrize("kind", KINDS)
def test_images_without_labels_may_lie_anywhere(tmp_path: Path, kind: str) -> None:
    root = lay(
        tmp_path / "photos", *(f"{i}.png" for i in range(6)), *(f"2019/may/{i}.png" for i in range(6, 12)),
        *(f"2020/{i}.png" for i in range(12, 20)), "2020/notes.txt",
    )  # fmt: skip
    (root / "2020" / "notes.txt").touch()
    data = opened(root, kind)
    assert not data.labelled and data.classes == 0 and data.judged_on == {}
    assert (data.train.labels.tolist(), data.val.labels.tolist()) == ([0] * 18, [0] * 2)
    assert sorted(names_of(data) + names_of(data, "val")) == sorted(f"{i}.png" for i in range(20))
    assert data.found == (
        "18 training and 2 validation images without labels; validation images held out from training: "
        "data.val_fraction=0.1, drawn at random"
    )
    assert data.notes == ["files left out: 1 without an image's ending (.txt 1): 2020/notes.txt"]
    assert data.fingerprint == opened(root).fingerprint


def test_a_flat_folder_is_without_labels_and_splits_may_be_given(tmp_path: Path) -> None:
    flat = opened(lay(tmp_path / "flat", *(f"{i}.png" for i in range(10))))
    assert not flat.labelled and (flat.train.labels.numel(), flat.val.labels.numel()) == (8, 2)
    split = opened(lay(tmp_path / "split", *(f"train/{i}.png" for i in range(5)), "val/5.png", "val/6.png"))
    assert not split.labelled and (split.train.labels.numel(), split.val.labels.numel()) == (5, 2)
    assert split.found == "5 training and 2 validation images without labels (train/ and val/)"


def test_labels_none_takes_every_image_and_has_a_name_of_its_own(tmp_path: Path) -> None:
    root = lay(tmp_path / "set", *(f"{s}/{c}/{i}.png" for s in ("train", "val") for c in "ab" for i in range(3)))
    labelled, bare = opened(root), opened(root, labels="none")
    assert labelled.labelled and not bare.labelled
    assert names_of(bare) == names_of(labelled) and names_of(bare, "val") == names_of(labelled, "val")
    assert bare.fingerprint != labelled.fingerprint
    limited = opened(root, labels="none", train_images=3)
    assert names_of(limited) == ["0.png", "2.png", "1.png"]  # spread over the folder


def test_folders_that_hardly_repeat_are_not_taken_for_classes(tmp_path: Path) -> None:
    root = lay(tmp_path / "scans", *(f"patient{i}/1.png" for i in range(10)))
    assert not opened(root).labelled
    pairs = lay(tmp_path / "pairs", *(f"patient{i}/{j}.png" for i in range(10) for j in range(2)))
    assert opened(pairs).classes == 10 and not opened(pairs, labels="none").labelled


def test_a_closed_class_does_not_make_a_set_one_without_labels(tmp_path: Path) -> None:
    root = lay(tmp_path / "set", *(f"{s}/a/{i}.png" for s in ("train", "val") for i in range(3)))
    (root / "train" / "b").symlink_to("/gone/b")
    assert "all 3 training images are of one class (a)" in refused(config_of(root, on_error="skip"))


# --- Groups ---------------------------------------------------------------------------------------------------------


def test_groups_are_on_one_side_and_classes_stay_balanced(tmp_path: Path) -> None:
    draw = random.Random(0)
    patients = {f"p{number}": draw.choice("ab") for number in range(20)}
    counts = {name: draw.choice((2, 3)) for name in patients}
    root = lay(
        tmp_path / "set", *(f"{patients[name]}/{name}/{i}.png" for name in patients for i in range(counts[name]))
    )
    data = opened(root, groups=2, val_fraction=0.2)

    def sides(split: str) -> set[str]:
        source = getattr(data, split)
        return {source.name(index).split("/")[-2] for index in range(source.labels.numel())}

    assert sides("train") & sides("val") == set() and sides("train") | sides("val") == set(patients)
    whole = data.train.labels.numel() + data.val.labels.numel()
    assert 0.1 < data.val.labels.numel() / whole < 0.3 and set(classes_of(data, "val")) == {"a", "b"}
    assert "whole groups" in data.found
    assert opened(root, groups=-1, val_fraction=0.2).fingerprint == data.fingerprint
    assert "lies in 2 folder(s) below its split" in refused(config_of(root, groups=3))


def test_groups_are_divided_by_class_and_one_group_is_refused() -> None:
    labels = torch.arange(40) // 20
    groups = torch.arange(40) // 2
    kept, off = split_off_groups(labels, groups, 0.2, 0)
    assert torch.bincount(labels[off]).tolist() == [4, 4] and kept.numel() == 32
    assert not torch.isin(groups[kept], groups[off]).any()
    _, two = split_off_groups(torch.zeros(10, dtype=torch.int64), torch.arange(10) // 5, 0.1, 0)
    assert two.numel() == 5  # the smallest part that whole groups allow
    with pytest.raises(ValueError, match=r"1 group\(s\)"):
        split_off_groups(labels, torch.zeros_like(groups), 0.2, 0)


def test_a_group_in_both_splits_of_a_set_is_refused(tmp_path: Path) -> None:
    root = lay(tmp_path / "set", *(f"{s}/{c}/p{c}/{i}.png" for s in ("train", "val") for c in "ab" for i in range(2)))
    message = refused(config_of(root, groups=2))
    assert "2 group(s) of" in message and "are in training and in validation (pa, pb)" in message


# --- Packed sets ----------------------------------------------------------------------------------------------------


def test_a_packed_set_without_labels_is_one_without_labels(tmp_path: Path) -> None:
    root = lay(tmp_path / "photos", *(f"{i % 3}/{i // 3}.png" for i in range(12)), "top.png")
    (tmp_path / "packed").mkdir()
    packing = prepare(config_of(root), tmp_path / "packed", 256, 95)
    for _ in pack(packing, 1):
        pass
    for _ in verify(packing, 1):
        pass
    source, data = opened(root), open_data(config_of(tmp_path / "packed"))
    assert not data.labelled and (data.train.labels.numel(), data.val.labels.numel()) == (11, 2)
    for split in ("train", "val"):
        one, other = getattr(source, split), getattr(data, split)
        assert all(torch.equal(one.load(index), other.load(index)) for index in range(one.labels.numel()))
