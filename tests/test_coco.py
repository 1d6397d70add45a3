"""Labels from COCO's JSON, and frames of videos as a tree."""

import json
from pathlib import Path
from typing import Any

import pytest
from image_sets import config_of, refused
from test_image_layouts import classes_of, lay, names_of, opened


def coco(file: Path, images: dict[str, list[int]], **fields: Any) -> str:
    """COCO's JSON of images (name → categories); `fields` give further fields of an image, by its number."""
    annotations, listed = [], []
    for number, (name, categories) in enumerate(images.items(), 1):
        listed.append({"id": number, "file_name": name, "height": 16, "width": 16, "license": 1})
        listed[-1] |= {field: of(number) for field, of in fields.items()}
        for category in categories:
            found = {"id": len(annotations), "image_id": number, "category_id": category, "bbox": [0, 0, 8, 8]}
            annotations.append({**found, "area": 64, "iscrowd": 0})
    names = {1: "person", 18: "dog", 90: "toothbrush"}
    categories = [{"id": number, "name": name, "supercategory": "any"} for number, name in names.items()]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"images": listed, "annotations": annotations, "categories": categories}))
    return str(file)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return lay(tmp_path / "set", *(f"images/{i:012d}.png" for i in range(12)))


@pytest.mark.parametrize("kind", ["directory", "set.tar"])
def test_the_category_of_an_image_is_its_label(root: Path, kind: str) -> None:
    names = {f"{i:012d}.png": [18, 18] if i % 3 else [90] for i in range(11)}  # two dogs are one category
    data = opened(root, kind, labels=coco(root.with_name("a.json"), names))
    assert list(data.train.class_names) == ["dog", "toothbrush"]
    both = {
        name: label
        for split in ("train", "val")
        for name, label in zip(names_of(data, split), classes_of(data, split), strict=True)
    }
    assert both == {name: "dog" if ids == [18, 18] else "toothbrush" for name, ids in names.items()}
    assert "files left out: 1 not in the table of labels: images/000000000011.png" in data.notes


@pytest.mark.parametrize("categories", [[1, 18], []])
def test_without_one_category_per_image_the_set_has_no_labels(root: Path, categories: list[int]) -> None:
    names = {f"{i:012d}.png": [18] if i else categories for i in range(12)}
    file = coco(root.with_name("a.json"), names)
    data = opened(root, labels=file)
    assert not data.labelled and data.train.labels.numel() + data.val.labels.numel() == 12
    several, none = (1, 0) if categories else (0, 1)
    assert data.notes == [
        f"{file}: of 12 images {several} have several categories and {none} have none; labels need one per image, so "
        "the set is read without labels"
    ]


def test_a_file_per_split_and_coco_folders_give_the_splits(tmp_path: Path) -> None:
    names = {
        split: [f"{split}/{i:012d}.png" for i in range(first, first + 6)]
        for split, first in (("train2017", 0), ("val2017", 6))
    }
    root = lay(tmp_path / "coco", *names["train2017"], *names["val2017"])
    for split, images in names.items():
        ids = {image.rpartition("/")[2]: [18 if i % 2 else 1] for i, image in enumerate(images)}
        coco(root / "annotations" / f"instances_{split}.json", ids)
    settings = {"train_split": "train2017", "val_split": "val2017"}
    data = opened(root, labels=str(root / "annotations" / "instances_{split}.json"), **settings)
    assert names_of(data, "val") == [f"{i:012d}.png" for i in range(6, 12)]
    assert list(data.train.class_names) == ["dog", "person"] and data.val.labels.tolist() == [1, 0] * 3
    (root / "annotations" / "instances_val2017.json").unlink()
    missing = config_of(root, labels=str(root / "annotations" / "instances_{split}.json"), **settings)
    assert "instances_val2017.json does not exist" in refused(missing)


def test_a_field_of_an_image_is_a_column_of_groups(root: Path) -> None:
    names = {f"{i:012d}.png": [18 if i % 2 else 1] for i in range(12)}
    file = coco(root.with_name("a.json"), names, video_id=lambda number: (number - 1) // 4)
    data = opened(root, labels=file, groups="video_id")
    assert len({int(name[:12]) // 4 for name in names_of(data, "val")}) == 1 and data.val.labels.numel() == 4


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting property name"),
        ("[]", "list indices must be"),
        ('{"images": [{"id": 1}]}', "it lacks 'file_name'"),
    ],
)
def test_other_json_is_refused(root: Path, text: str, reason: str) -> None:
    file = root.with_name("a.json")
    file.write_text(text)
    message = refused(config_of(root, labels=str(file)))
    assert message.startswith(f"data.labels {file} is not COCO's JSON ({reason}")


@pytest.mark.parametrize("labels", ["auto", "none"])
def test_frames_of_videos_have_no_labels_and_a_video_is_on_one_side(tmp_path: Path, labels: str) -> None:
    root = lay(tmp_path / "videos", *(f"video{v}/frame{i:04d}.png" for v in range(5) for i in range(4)))
    data = opened(root, groups=-1, labels=labels, val_fraction=0.3)
    assert not data.labelled and (data.train.labels.numel(), data.val.labels.numel()) == (16, 4)
    videos = [
        {data_name.split("/")[-2] for data_name in map(source.name, range(source.labels.numel()))}
        for source in (data.train, data.val)
    ]
    assert not videos[0] & videos[1] and len(videos[1]) == 1


def test_videos_in_folders_of_splits_and_classes(tmp_path: Path) -> None:
    root = lay(
        tmp_path / "split", *(f"{'val' if v > 3 else 'train'}/video{v}/{i}.png" for v in range(6) for i in range(3))
    )
    data = opened(root, groups=1)
    assert not data.labelled and (data.train.labels.numel(), data.val.labels.numel()) == (12, 6)
    root = lay(
        tmp_path / "classes", *(f"{'run' if v % 2 else 'jump'}/video{v}/{i}.png" for v in range(6) for i in range(3))
    )
    data = opened(root, groups=-1)
    assert list(data.train.class_names) == ["jump", "run"] and data.val.labels.numel() % 3 == 0
