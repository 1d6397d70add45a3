"""Tables of labels: a CSV, TSV or Parquet file with the columns `path` and optionally `label`, `split` and a column of
groups, or COCO's JSON."""

import csv
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cnnjepa.data.arrangement import Arrangement, checked
from cnnjepa.data.class_folders import common_folder
from cnnjepa.data.coco import read_coco
from cnnjepa.data.scan import Reason, Scan, named, printable
from cnnjepa.optional import needed
from cnnjepa.schemas import ConfigError, FolderData

_SPLIT = "{split}"  # in the name of a table: replaced by the name of each split


class Listed(NamedTuple):
    """The arrangement that a table gives."""

    arrangement: Arrangement
    groups: dict[int, str] | None
    """Group of every image that is used; None if no column of groups is requested."""
    notes: list[str]


def arrange_by_table(scan: Scan, config: FolderData, where: str) -> Listed:
    """Arrange images as the table `data.labels` says. A path in it is below the set's root, or any unambiguous end of a
    path.

    Images that the table does not name are added to the scan's `left_out`. Raises ConfigError for a table that cannot
    be read, lacks a column, contradicts itself, or names no image.
    """
    file = Path(config.labels)
    rows, said = _rows(file, config)
    column = config.groups if isinstance(config.groups, str) else None
    _refuse_columns(file, rows, column)
    paths = [entry.path for entry in scan.entries]
    found, missing = _rows_of(rows, paths, file, where)
    labelled = "label" in rows[0]
    splits = _splits(rows, found, paths, config)
    for index, path in enumerate(paths):
        if index not in found:
            scan.left_out.add(Reason.UNLISTED, path)
        elif index not in splits:
            scan.left_out.add(Reason.OUTSIDE, path)
    used = sorted(splits)
    classes = {index: rows[found[index]]["label"] for index in used} if labelled else None
    blank = [index for index in used if classes is not None and not classes[index]]
    if blank:
        raise ConfigError(
            f"data.labels {file}: {len(blank):,} row(s) have no label ({printable(paths[blank[0]])}); fill the column, "
            "or leave it out for images without labels"
        )
    arrangement = Arrangement(
        "",
        [index for index in used if splits[index] == "train"],
        [index for index in used if splits[index] == "val"],
        classes,
        f"the table {file.name}",
        lost=scan.lost,
    )
    checked(arrangement, paths, config, where)
    groups = {index: rows[found[index]][column] for index in used} if column else None
    notes = [f"{len(missing):,} row(s) of {file} name no image of this set: {named(missing)}"] if missing else []
    return Listed(arrangement, groups, [*said, *notes])


def _rows(file: Path, config: FolderData) -> tuple[list[dict[str, str]], list[str]]:
    """Return the rows of a table, or of one per split if its name contains `{split}`, and notes."""
    if _SPLIT not in str(file):
        return _read(file)
    rows, notes = list[dict[str, str]](), list[str]()
    for split in (config.train_split, config.val_split):
        of_split, said = _read(Path(str(file).replace(_SPLIT, split)))
        rows += [{**row, "split": split} for row in of_split]
        notes += said
    if any("label" not in row for row in rows):  # one table alone has no labels
        rows = [{name: value for name, value in row.items() if name != "label"} for row in rows]
    return rows, notes


def _read(file: Path) -> tuple[list[dict[str, str]], list[str]]:
    notes: list[str] = []
    try:
        if file.suffix.lower() == ".parquet":
            rows = _parquet(file)
        elif file.suffix.lower() == ".json":
            rows, notes = read_coco(file)
        else:
            with open(file, encoding="utf-8-sig", newline="") as lines:
                reader = csv.DictReader(lines, delimiter="\t" if file.suffix.lower() == ".tsv" else ",")
                rows = [{name.strip(): (value or "").strip() for name, value in _plain(row)} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"data.labels {file} cannot be read ({error})") from None
    if not rows:
        raise ConfigError(f"data.labels {file} has no rows; it needs the columns path and label, and a row per image")
    return rows, notes


def _plain(row: dict[Any, Any]) -> list[tuple[str, str]]:
    """Return a row's cells. A row with more cells than the head has columns is refused."""
    if None in row:
        raise csv.Error(f"a row has more cells than the head: {row}")
    return list(row.items())


def _parquet(file: Path) -> list[dict[str, str]]:
    parquet = needed("pyarrow.parquet", "parquet", f"data.labels {file}")
    try:
        table = parquet.read_table(file).to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise ConfigError(f"data.labels {file} cannot be read ({error})") from None
    return [{name: "" if value is None else str(value) for name, value in row.items()} for row in table]


def _refuse_columns(file: Path, rows: Sequence[dict[str, str]], group: str | None) -> None:
    for wanted in ("path", *([group] if group else [])):
        if wanted not in rows[0]:
            asked = f" (data.groups={group})" if wanted == group else ""
            raise ConfigError(
                f"data.labels {file} has no column {wanted!r}{asked}; it has {', '.join(rows[0])}. Columns are path, "
                "and optionally label, split (train or val) and one of groups"
            )


def _rows_of(
    rows: Sequence[dict[str, str]], paths: list[str], file: Path, where: str
) -> tuple[dict[int, int], list[str]]:
    """Return the row of every image that the table names, by the image's index, and the names without an image."""
    exact = {path: index for index, path in enumerate(paths)}
    root = common_folder(paths) if paths else ""
    by_name: dict[str, list[int]] = defaultdict(list)
    for index, path in enumerate(paths):
        by_name[path.rsplit("/", 1)[-1]].append(index)
    found: dict[int, int] = {}
    missing: list[str] = []
    for number, row in enumerate(rows):
        given = row["path"].replace("\\", "/")
        name = given.removeprefix(f"{where}/").removeprefix(f"{os.path.abspath(where)}/").removeprefix("./").strip("/")
        at = exact.get(name, exact.get(f"{root}{name}"))
        if at is None:
            ending = [i for i in by_name.get(name.rsplit("/", 1)[-1], ()) if f"/{paths[i]}".endswith(f"/{name}")]
            if len(ending) > 1:
                raise ConfigError(
                    f"data.labels {file}: {given} may be {paths[ending[0]]} or {paths[ending[1]]}; write the path "
                    f"below {where}"
                )
            at = ending[0] if ending else None
        if at is None:
            missing.append(printable(given))
        elif at in found and rows[found[at]] != row:
            raise ConfigError(f"data.labels {file} names {paths[at]} twice, with different values")
        else:
            found[at] = number
    if not found:
        example = f"{printable(paths[0])}" if paths else "nothing"
        raise ConfigError(
            f"data.labels {file} names no image of {where}: its first path is {rows[0]['path']!r}, the set's first "
            f"image is {example}"
        )
    return found, missing


def _splits(
    rows: Sequence[dict[str, str]], found: dict[int, int], paths: list[str], config: FolderData
) -> dict[int, str]:
    """Return the split (train or val) of every image that is used, by index: the column `split`, or else the folders
    of the splits if the set has both, or else train."""
    names = {config.train_split: "train", config.val_split: "val", "train": "train", "val": "val"}
    if "split" in rows[0]:
        given = {index: rows[number]["split"] for index, number in found.items()}
        if not any(names.get(name or "train") == "train" for name in given.values()):
            raise ConfigError(
                f"data.labels {config.labels}: no row is of split {config.train_split!r}; the column has "
                f"{', '.join(sorted(set(given.values()))[:5])}. Name them with data.train_split and data.val_split"
            )
        return {index: names.get(name or "train", "") for index, name in given.items() if not name or name in names}
    root = common_folder(paths)
    top = {index: paths[index].removeprefix(root).split("/")[0] for index in found}
    if {config.train_split, config.val_split} <= set(top.values()):
        return {index: names[name] for index, name in top.items() if name in names}
    return dict.fromkeys(found, "train")
