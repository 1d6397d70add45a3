"""Labels, splits and groups from a table."""

import sys
from pathlib import Path

import pytest
from image_sets import config_of, refused
from test_image_layouts import classes_of, lay, names_of, opened

from cnnjepa.data import open_data


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return lay(tmp_path / "set", *(f"img/{i}.png" for i in range(12)))


def table(root: Path, *lines: str, name: str = "labels.csv") -> str:
    file = root.with_name(name)
    file.write_text("\n".join(lines), encoding="utf-8")
    return str(file)


@pytest.mark.parametrize("kind", ["directory", "set.tar", "set.tar.gz"])
def test_a_table_gives_labels_and_splits(root: Path, kind: str) -> None:
    rows = [f"img/{i}.png,{'cat' if i % 3 else 'dog'},{'val' if i > 7 else 'train'}" for i in range(11)]
    data = opened(root, kind, labels=table(root, "path,label,split", *rows))
    assert names_of(data, "val") == ["10.png", "8.png", "9.png"] and classes_of(data, "val") == ["cat", "cat", "dog"]
    assert data.train.labels.numel() == 8 and data.train.class_names == ["cat", "dog"]
    assert data.found == "8 training and 3 validation images of 2 classes (the table labels.csv)"
    assert data.notes == ["files left out: 1 not in the table of labels: img/11.png"]


def test_labels_are_part_of_the_fingerprint_and_the_tables_place_is_not(root: Path) -> None:
    rows = [f"img/{i}.png,{i % 2}" for i in range(12)]
    data = opened(root, labels=table(root, "path,label", *rows))
    elsewhere = opened(root, labels=table(root, "path,label", *rows, name="other.csv"))
    assert elsewhere.fingerprint == data.fingerprint
    rows[0] = "img/0.png,1"
    assert opened(root, labels=table(root, "path,label", *rows)).fingerprint != data.fingerprint


def test_numbers_are_ordered_as_numbers_and_names_may_stand_for_paths(root: Path) -> None:
    rows = [f"{i}.png\t{i // 2 + 8}" for i in range(12)]
    data = opened(root, labels=table(root, "path\tlabel", *rows, name="labels.tsv"), val_fraction=0.4)
    assert data.train.class_names == ["8", "9", "10", "11", "12", "13"]
    assert sorted(data.val.labels.tolist()) == [0, 1, 2, 3, 4, 5]  # one image of each class


def test_full_paths_name_the_images_of_a_set_at_a_relative_path(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = table(root, "path,label", *(f"{root}/img/{i}.png,{i % 2}" for i in range(12)))
    monkeypatch.chdir(root.parent)
    data = open_data(config_of(Path(root.name), labels=labels))
    assert data.classes == 2 and data.train.labels.numel() + data.val.labels.numel() == 12 and data.notes == []


def test_a_column_of_groups_keeps_them_on_one_side(root: Path) -> None:
    rows = [f"img/{i}.png,{i % 2},p{i // 4}" for i in range(12)]
    labels = table(root, "path,label,patient", *rows)
    data = opened(root, labels=labels, groups="patient")
    held = {int(name.split(".")[0]) // 4 for name in names_of(data, "val")}
    assert len(held) == 1 and data.val.labels.numel() == 4 and "whole groups, 1 of 3" in data.found
    assert "has no column 'scan' (data.groups=scan); it has path, label, patient" in refused(
        config_of(root, labels=labels, groups="scan")
    )


def test_a_table_without_a_label_column_gives_splits_only(root: Path) -> None:
    rows = [f"img/{i}.png,{'val' if i < 2 else 'train'}" for i in range(12)]
    data = opened(root, labels=table(root, "path,split", *rows))
    assert not data.labelled and (data.train.labels.numel(), data.val.labels.numel()) == (10, 2)


def test_a_parquet_table_is_read_where_pyarrow_is_installed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    file = root.with_name("labels.parquet")
    parquet.write_table(
        pyarrow.table({"path": [f"img/{i}.png" for i in range(12)], "label": [i % 2 for i in range(12)]}), file
    )
    data = opened(root, labels=str(file))
    assert data.train.class_names == ["0", "1"]
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    message = refused(config_of(root, labels=str(file)))
    assert f"data.labels {file} needs pyarrow, which is not installed: pip install" in message


def test_a_table_that_cannot_be_used_says_why(root: Path) -> None:
    def message(*lines: str) -> str:
        return refused(config_of(root, labels=table(root, *lines)))

    assert "has no column 'path'; it has file, label" in message("file,label", "img/0.png,a")
    assert "has no rows" in message("path,label")
    assert "names no image of" in message("path,label", "elsewhere/x.png,a") and "img/0.png" in message(
        "path,label", "elsewhere/x.png,a"
    )
    twice = message("path,label", "img/0.png,a", "img/0.png,b")
    assert "names img/0.png twice, with different values" in twice
    assert "1 row(s) have no label (img/1.png)" in message("path,label", "img/0.png,a", "img/1.png,")
    assert "a row has more cells than the head" in message("path,label", "img/0.png,a,b")
    assert "none.csv does not exist; give auto" in refused(config_of(root, labels=str(root / "none.csv")))
    assert "no row is of split 'train'; the column has test" in message("path,label,split", "img/0.png,a,test")
    assert "no row is of split 'train'; the column has val" in message("path,label,split", "img/0.png,a,val")
    unknown = message("path,label,split", "img/0.png,a,train", "img/1.png,b,train", "img/2.png,c,val")
    assert unknown == f"{root}: val has classes that train lacks: c (img/2.png); every class must have a training image"
    assert "may be a/1.png or b/1.png" in refused(
        config_of(lay(root.with_name("two"), "a/1.png", "b/1.png"), labels=table(root, "path,label", "1.png,x"))
    )


def test_rows_without_an_image_are_counted(root: Path) -> None:
    rows = [f"img/{i}.png,{i % 2}" for i in range(14)]
    data = open_data(config_of(root, labels=table(root, "path,label", *rows)))
    (note,) = data.notes
    assert note.startswith("2 row(s) of ") and note.endswith("name no image of this set: img/12.png, img/13.png")
