"""The formats of a file of features: each writes rows part by part, and gives the same bytes for the same rows."""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from cnnjepa.optional import needed

KEY = "cnnjepa"
"""Name of the settings in the metadata of a file."""


@dataclass(frozen=True)
class Rows:
    """Some rows of the file."""

    index: list[int]
    """Indices of the images in the set."""
    name: list[str]
    split: list[str]
    label: list[str] | None
    """Names of the classes; None without labels."""
    values: np.ndarray[Any, Any]
    """Features [n, C] or [n, C, h, w]."""

    @property
    def columns(self) -> dict[str, list[Any]]:
        """The columns without the features."""
        found: dict[str, list[Any]] = {"index": self.index, "name": self.name, "split": self.split}
        return found if self.label is None else {**found, "label": self.label}


class Header(NamedTuple):
    """Facts about the whole file."""

    rows: int
    shape: tuple[int, ...]
    """Shape of an image's features."""
    dtype: str
    labelled: bool
    facts: dict[str, Any]
    """The settings, as JSON values."""

    @property
    def text(self) -> str:
        """The settings as JSON."""
        return json.dumps(self.facts, indent=1, sort_keys=True)


Writer = Callable[[Callable[[str], Path], Header, Iterator[Rows]], tuple[str, ...]]
"""Function that writes the rows into the files `aside(suffix)` and returns their suffixes, the features' last."""


def _parquet(aside: Callable[[str], Path], header: Header, rows: Iterator[Rows]) -> tuple[str, ...]:
    arrow, parquet = (needed(name, "datasets", "--out FILE.parquet") for name in ("pyarrow", "pyarrow.parquet"))
    number = arrow.float16() if header.dtype == "float16" else arrow.float32()
    columns = [("index", arrow.int64()), ("name", arrow.string()), ("split", arrow.string())]
    columns += [("label", arrow.string())] if header.labelled else []
    columns += [("features", arrow.list_(number, header.shape[0]))]
    schema = arrow.schema(columns, metadata={KEY: header.text})
    with parquet.ParquetWriter(aside(".parquet"), schema) as writer:
        for some in rows:
            flat = arrow.array(some.values.reshape(-1), type=number)
            features = arrow.FixedSizeListArray.from_arrays(flat, header.shape[0])
            writer.write_table(arrow.table({**some.columns, "features": features}, schema=schema))
    return (".parquet",)


def _npy(aside: Callable[[str], Path], header: Header, rows: Iterator[Rows]) -> tuple[str, ...]:
    described = {"descr": np.dtype(header.dtype).str, "fortran_order": False, "shape": (header.rows, *header.shape)}
    with open(aside(".npy"), "wb") as file, open(aside(".csv"), "w", newline="", encoding="utf-8") as table:
        np.lib.format.write_array_header_2_0(file, described)
        lines = csv.writer(table, lineterminator="\n")
        lines.writerow(["index", "name", "split", *(["label"] if header.labelled else [])])
        for some in rows:
            lines.writerows(zip(*some.columns.values(), strict=True))
            file.write(np.ascontiguousarray(some.values).data)
    aside(".json").write_text(header.text + "\n", encoding="utf-8")
    return ".json", ".csv", ".npy"


def _hdf5(aside: Callable[[str], Path], header: Header, rows: Iterator[Rows]) -> tuple[str, ...]:
    with h5py.File(aside(".h5"), "w") as file:
        file.attrs[KEY] = header.text
        text = h5py.string_dtype()
        features = file.create_dataset("features", (header.rows, *header.shape), header.dtype)
        for name, kind in {"index": "int64", "name": text, "split": text}.items():
            file.create_dataset(name, (header.rows,), kind)
        if header.labelled:
            file.create_dataset("label", (header.rows,), text)
        first = 0
        for some in rows:
            last = first + len(some.index)
            features[first:last] = some.values
            for name, values in some.columns.items():
                file[name][first:last] = values
            first = last
    return (".h5",)


WRITERS: dict[str, Writer] = {".parquet": _parquet, ".npy": _npy, ".h5": _hdf5, ".hdf5": _hdf5}
"""Ending of the file → its writer."""
