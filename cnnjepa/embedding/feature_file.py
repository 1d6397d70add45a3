"""Reading of a file of features."""

import csv
import json
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from cnnjepa.embedding.formats import KEY
from cnnjepa.embedding.request import ENDINGS
from cnnjepa.optional import needed
from cnnjepa.schemas import ConfigError

_ROWS = 4096  # rows of features that are read at a time

Array = np.ndarray[Any, Any]
Blocks = Callable[[], Iterator[Array]]
"""Function that reads the features [n, C] or [n, C, h, w] of some rows at a time, in their order."""


class FeatureFile:
    """Names, labels and features of a set of images."""

    def __init__(self, path: Path, facts: dict[str, Any], columns: dict[str, list[Any]], blocks: Blocks) -> None:
        self.path, self.facts, self._blocks = path, facts, blocks
        self.names: list[str] = columns["name"]
        """Names of the images, in the order of the rows."""
        self.labels: list[str] | None = columns.get("label")
        """Names of the classes; None without labels."""
        self.index: list[int] = columns["index"]
        """Indices of the images in their set."""

    @cached_property
    def vectors(self) -> Tensor:
        """The features averaged over positions, float32 [N, C]."""
        found, first = torch.empty(0), 0
        for values in self._blocks():
            block = torch.from_numpy(values).float()
            if not first:
                found = torch.empty(len(self.names), block.shape[1])
            found[first : first + len(block)] = block.mean((2, 3)) if block.dim() == 4 else block
            first += len(block)
        return found

    def caption(self, row: int) -> str:
        """Return the class of a row's image; empty without labels."""
        return self.labels[row] if self.labels is not None else ""

    def row(self, name: str) -> int | None:
        """Return the row of an image; None if there is none of this name. Raises ConfigError if there are several."""
        rows = [row for row, other in enumerate(self.names) if other == name]
        if len(rows) > 1:
            raise ConfigError(f"{name}: {self.path} has {len(rows)} images of this name")
        return rows[0] if rows else None


def open_features(path: Path) -> FeatureFile:
    """Open a file that `cnnjepa embed` wrote. Raises ConfigError for any other file."""
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; give a file that `cnnjepa embed` wrote")
    if path.suffix not in _READERS:
        raise ConfigError(f"{path} is no file of features; the ending must be one of {', '.join(ENDINGS)}")
    facts = facts_of(path)
    if facts is None:
        raise ConfigError(f"{path} was not written by `cnnjepa embed`: it has no settings of ours")
    return FeatureFile(path, facts, *_READERS[path.suffix](path))


def facts_of(path: Path) -> dict[str, Any] | None:
    """Return the settings in a file of features; None if it has none."""
    try:
        if path.suffix == ".parquet":
            metadata = needed("pyarrow.parquet", "datasets", str(path)).read_schema(path).metadata or {}
            text = metadata[KEY.encode()].decode()
        elif path.suffix == ".npy":
            text = path.with_suffix(".json").read_text(encoding="utf-8")
        else:
            with h5py.File(path, "r") as file:
                text = file.attrs[KEY]
        found: dict[str, Any] = json.loads(text)
    except ConfigError:
        raise
    except (OSError, ValueError, KeyError):  # pyarrow's errors are ValueErrors
        return None
    return found if isinstance(found, dict) and "encoder" in found else None


def _read_parquet(path: Path) -> tuple[dict[str, list[Any]], Blocks]:
    file = needed("pyarrow.parquet", "datasets", str(path)).ParquetFile(path)
    names = [name for name in file.schema_arrow.names if name != "features"]

    def blocks() -> Iterator[Array]:
        for group in range(file.num_row_groups):
            column = file.read_row_group(group, columns=["features"]).column("features").combine_chunks()
            yield np.array(column.flatten()).reshape(len(column), -1)

    return file.read(columns=names).to_pydict(), blocks


def _read_npy(path: Path) -> tuple[dict[str, list[Any]], Blocks]:
    table = path.with_suffix(".csv")
    try:
        with open(table, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        values = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} with its table {table.name} cannot be read ({error})") from None
    if len(rows) != len(values):
        raise ConfigError(f"{path} has {len(values)} rows and its table {table.name} has {len(rows)}")
    columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
    return {**columns, "index": [int(value) for value in columns["index"]]}, lambda: _pieces(values)


def _read_hdf5(path: Path) -> tuple[dict[str, list[Any]], Blocks]:
    with h5py.File(path, "r") as file:
        columns = {name: file[name].asstr()[:].tolist() for name in ("name", "split", "label") if name in file}
        columns["index"] = file["index"][:].tolist()

    def blocks() -> Iterator[Array]:
        with h5py.File(path, "r") as opened:
            yield from _pieces(opened["features"])

    return columns, blocks


def _pieces(values: Any) -> Iterator[Array]:
    """Read an array that is on the disk."""
    for first in range(0, len(values), _ROWS):
        yield np.array(values[first : first + _ROWS])


_READERS = {".parquet": _read_parquet, ".npy": _read_npy, ".h5": _read_hdf5, ".hdf5": _read_hdf5}
