"""Data sets that the library `datasets` wrote: saved folders, Parquet, folders of images and its cache of the hub."""

import json
import multiprocessing
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from image_sets import CLASSES, TRAIN, VAL, batches, encoded, order_of, picture, write_set
from image_sets import config_of as folder_config

from cnnjepa.data.open import fingerprint_of, open_data, open_sources
from cnnjepa.errors import ImageError
from cnnjepa.schemas import ConfigError, HuggingFaceData, load_config

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The library's cache lies in the folder of the test, and nothing is asked from the network."""
    cache = tmp_path / "hf"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return cache


def config_of(path: Path | None, **settings: Any) -> HuggingFaceData:
    return HuggingFaceData(**{"path": path, "image_size": 32, "resident": "never", **settings})


def image(seed: int) -> dict[str, Any]:
    return {"bytes": encoded(picture(seed, 20 + seed % 5, 30), "JPEG" if seed % 2 else "PNG"), "path": None}


def table(count: int, first: int = 0, **columns: Any) -> Any:
    """A set of `count` images; columns are functions of the index."""
    kinds = {"image": datasets.Image()}
    content = {"image": [image(first + i) for i in range(count)]}
    for name, (of, kind) in columns.items():
        kinds[name] = kind
        content[name] = [of(first + i) for i in range(count)]
    return datasets.Dataset.from_dict(content, features=datasets.Features(kinds))


def label(names: tuple[str, ...] = CLASSES) -> tuple[Any, Any]:
    return lambda i: i % len(names), datasets.ClassLabel(names=list(names))


def saved(path: Path, **splits: Any) -> Path:
    datasets.DatasetDict(splits).save_to_disk(str(path))
    return path


def refused(config: HuggingFaceData) -> str:
    with pytest.raises(ConfigError) as caught:
        open_sources(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_saved_folder_gives_the_images_and_labels_that_were_put_in(tmp_path: Path) -> None:
    path = saved(tmp_path / "pets", train=table(9, label=label()), validation=table(6, 100, label=label()))
    sources = open_sources(config_of(path))
    for split, count, first in (("train", 9, 0), ("val", 6, 100)):
        source = sources[split]
        assert list(source.class_names) == list(CLASSES)
        assert source.labels.tolist() == [(first + i) % 3 for i in range(count)]
        for i in range(count):
            assert source.read(i) == image(first + i)["bytes"]  # type: ignore[attr-defined]
            assert source.load(i).shape == (3, 20 + (first + i) % 5, 30)
    assert sources["val"].name(2) == f"{path}/validation[2]"
    assert sources.found == (
        "9 training and 6 validation images of 3 classes (column label; train = train and val = validation)"
    )


def test_data_recognises_saved_folders_and_parquet(tmp_path: Path) -> None:
    rows = table(8, label=label())
    saved(tmp_path / "pets", train=rows)
    rows.save_to_disk(str(tmp_path / "single"))
    (tmp_path / "parquet" / "data").mkdir(parents=True)
    rows.to_parquet(str(tmp_path / "parquet" / "data" / "train-00000-of-00001.parquet"))
    write_set(tmp_path / "images")
    rows.to_parquet(str(tmp_path / "images" / "labels.parquet"))
    for name, source in (
        ("pets", "huggingface"), ("single", "huggingface"), ("parquet", "huggingface"),
        ("parquet/data/train-00000-of-00001.parquet", "huggingface"), ("images", "folder"),
    ):  # fmt: skip
        assert load_config("smoke", data=tmp_path / name).data.source == source
    assert load_config("smoke", data=tmp_path / "pets").data.dataset_name == "huggingface-pets"


@pytest.mark.parametrize("form", ["saved", "single", "parquet", "file"])
def test_every_form_gives_the_same_set(tmp_path: Path, form: str) -> None:
    rows = table(20, label=label())
    expected = open_sources(config_of(saved(tmp_path / "pets", train=rows)))
    path = tmp_path / form
    if form == "single":
        rows.save_to_disk(str(path))
    elif form == "saved":
        saved(path, train=rows)
    else:
        path.mkdir()
        rows.to_parquet(str(path / "train.parquet"))
        path = path / "train.parquet" if form == "file" else path
    found = open_sources(config_of(path))
    assert fingerprint_of(found) == fingerprint_of(expected)
    assert [s.labels.tolist() for s in found.values()] == [s.labels.tolist() for s in expected.values()]
    assert found["train"].labels.numel() == 17 and "held out" in found.found  # one image of each class


def test_a_folder_of_images_gives_what_the_folder_source_gives(tmp_path: Path) -> None:
    root = write_set(tmp_path / "animals")
    folder, found = open_sources(folder_config(root)), open_sources(config_of(root))
    for split, count in (("train", TRAIN), ("val", VAL)):
        assert list(found[split].class_names) == list(CLASSES)
        by_bytes = {folder[split].read(i): int(folder[split].labels[i]) for i in range(3 * count)}  # type: ignore[attr-defined]
        assert {found[split].read(i): int(found[split].labels[i]) for i in range(3 * count)} == by_bytes  # type: ignore[attr-defined]


def test_columns_are_found_or_named(tmp_path: Path) -> None:
    text = (lambda i: f"class {i % 2}", datasets.Value("string"))
    path = saved(
        tmp_path / "two", train=table(8, fine_label=label(), coarse_label=label(("a", "b")), caption=text),
        test=table(4, fine_label=label(), coarse_label=label(("a", "b")), caption=text),
    )  # fmt: skip
    assert refused(config_of(path)) == (
        f"{path} has several columns of labels (fine_label, coarse_label); choose with data.label_column=NAME, or use "
        "data.labels=none"
    )
    for name, classes in (
        ("fine_label", list(CLASSES)),
        ("coarse_label", ["a", "b"]),
        ("caption", ["class 0", "class 1"]),
    ):
        sources = open_sources(config_of(path, label_column=name))
        assert list(sources["val"].class_names) == classes
        assert sources["val"].labels.tolist() == [i % len(classes) for i in range(4)]
    assert open_sources(config_of(path, labels="none"))["train"].class_names == ()
    assert "data.label_column 'fine' is not in" in refused(config_of(path, label_column="fine"))


def test_plain_columns_of_bytes_and_text_are_read(tmp_path: Path) -> None:
    features = datasets.Features({"picture": datasets.Value("binary"), "label": datasets.Value("string")})
    content = {"picture": [image(i)["bytes"] for i in range(8)], "label": ["x", "y"] * 4}
    rows = datasets.Dataset.from_dict(content, features=features)
    sources = open_sources(config_of(saved(tmp_path / "plain", train=rows, dev=rows)))
    assert list(sources["train"].class_names) == ["x", "y"] and sources["train"].labels.tolist() == [0, 1] * 4
    assert sources["train"].read(3) == image(3)["bytes"]  # type: ignore[attr-defined]
    none = saved(tmp_path / "none", train=rows.remove_columns("picture"))
    assert refused(config_of(none)) == f"{none} has no column of images; its columns are label"


def test_splits_are_named_and_missing_ones_refused(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "s", train=table(6, label=label()), test=table(3, label=label()), extra=table(9, label=label())
    )
    assert open_sources(config_of(path))["val"].labels.numel() == 3  # test, as no split is called validation
    assert open_sources(config_of(path, val_split="extra"))["val"].labels.numel() == 9
    assert refused(config_of(path, val_split="vall")) == (
        f"data.val_split 'vall' is not in {path}; must be one of train, test, extra"
    )
    assert "data.train_split 'Train' is not in" in refused(config_of(path, train_split="Train"))


def test_test_splits_without_labels_are_refused(tmp_path: Path) -> None:
    blank = table(3, label=(lambda i: -1, datasets.ClassLabel(names=list(CLASSES))))
    path = saved(tmp_path / "s", train=table(6, label=label()), test=blank)
    assert "column label has rows without a label (-1)" in refused(config_of(path))
    assert open_sources(config_of(path, labels="none"))["val"].labels.tolist() == [0, 0, 0]


def test_groups_are_on_one_side(tmp_path: Path) -> None:
    patient = (lambda i: f"p{i // 4}", datasets.Value("string"))
    path = saved(tmp_path / "s", train=table(40, label=label(("a", "b")), patient=patient))
    sources = open_sources(config_of(path, groups="patient", val_fraction=0.2))
    sides = [set(source.groups.tolist()) for source in sources.values()]  # type: ignore[attr-defined]
    assert not sides[0] & sides[1] and len(sides[1]) == 2
    assert sources["val"].labels.numel() == 8


def test_a_selection_is_read_in_its_order(tmp_path: Path) -> None:
    rows = table(8, label=label()).select([5, 2, 7, 0])
    path = saved(tmp_path / "s", train=rows, validation=rows)
    source = open_sources(config_of(path))["train"]
    assert [source.read(i) for i in range(4)] == [image(i)["bytes"] for i in (5, 2, 7, 0)]  # type: ignore[attr-defined]


def test_an_image_that_is_a_missing_file_is_an_error_with_its_row(tmp_path: Path) -> None:
    root = write_set(tmp_path / "animals")
    source = open_sources(config_of(root))["train"]
    (root / "train" / "ant" / "2.JPEG").unlink()
    with pytest.raises(ImageError, match=r"animals/train\[2\] \(.*ant/2\.JPEG\) cannot be read \(No such file"):
        source.load(2)


@pytest.mark.processes
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_batches_do_not_depend_on_loader_processes(tmp_path: Path) -> None:
    path = saved(tmp_path / "s", train=table(16, label=label()), validation=table(6, label=label()))
    config = config_of(path)
    data = open_data(config)
    found = [batches(data, config, order_of(data), 0, 6, workers=workers) for workers in (0, 2)]
    for one, other in zip(*found, strict=True):
        assert torch.equal(one.pixels, other.pixels) and torch.equal(one.labels, other.labels)
    assert multiprocessing.active_children() == []


def test_a_hub_name_is_read_from_the_cache(tmp_path: Path, own_cache: Path) -> None:
    """The library's copy of a set from the hub is made here from its copy of Parquet files."""
    rows = table(12, label=label())
    rows.to_parquet(str(tmp_path / "train.parquet"))
    datasets.load_dataset("parquet", data_files=str(tmp_path / "train.parquet"))
    (info,) = own_cache.rglob("dataset_info.json")
    made = info.parent
    target = own_cache / "acme___pets" / "default" / "0.0.0" / ("0" * 40)
    target.mkdir(parents=True)
    (made / "parquet-train.arrow").rename(target / "pets-train.arrow")
    facts = json.loads(info.read_text()) | {"dataset_name": "pets", "builder_name": "parquet"}
    (target / "dataset_info.json").write_text(json.dumps(facts))
    config = config_of(None, hub="acme/pets")
    sources = open_sources(config)
    assert config.dataset_name == "huggingface-pets" and list(sources["train"].class_names) == list(CLASSES)
    total = sum(source.labels.numel() for source in sources.values())
    assert total == 12 and sources["train"].name(0) == "acme/pets/train[0]"
    message = refused(config_of(None, hub="acme/dogs"))
    assert message.startswith("data.hub 'acme/dogs' cannot be opened (")
    assert "set data.download=true where there is a network" in message


def test_a_missing_library_is_named_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "s", train=table(4, label=label()))
    monkeypatch.setitem(sys.modules, "datasets", None)
    message = refused(config_of(path))
    assert message.startswith("data.source=huggingface needs datasets, which is not installed: pip install")


def test_a_path_and_a_hub_name_are_refused_together(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="are two data sets; give one of them"):
        config_of(tmp_path, hub="acme/pets")
