"""A table, independent of its output format."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Value = float | int | str | None


@dataclass(frozen=True)
class Cell:
    """The displayed text of a cell, and the values behind it."""

    text: str
    values: Mapping[str, Value] = field(default_factory=dict)
    """Suffix of a CSV column's name → value in full; the empty suffix is the column's own name."""
    sort: float | str | None = None
    """Sort key on the page; None sorts last."""
    tone: Literal["", "better", "worse", "quiet", "bad", "strong"] = ""
    note: str = ""
    """Tooltip on the page."""
    runs: tuple[str, ...] = ()
    """Short hashes of the trials that the cell is computed from."""
    below: str = ""
    """A smaller second line, such as the interval."""


@dataclass(frozen=True)
class Column:
    """A column. Its CSV columns begin with `key`."""

    key: str
    header: str
    endings: tuple[str, ...] = ("",)
    """Suffixes of its CSV columns."""
    numeric: bool = True
    latex: bool = True
    """True if the column is in the LaTeX table, which must fit on a page."""


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns."""

    name: str
    """File name without extension."""
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    """Sentences below the table."""

    def csv_header(self) -> list[str]:
        """Return the names of the CSV columns."""
        return ["_".join(filter(None, (c.key, ending))) for c in self.columns for ending in c.endings]

    def csv_row(self, row: tuple[Cell, ...]) -> list[Value]:
        """Return the values of one row under `csv_header`."""
        return [cell.values.get(ending) for c, cell in zip(self.columns, row, strict=True) for ending in c.endings]


def number_cell(value: float | None, decimals: int, column_ending: str = "") -> Cell:
    """Return a cell with a plain number, or a dash if there is none."""
    if value is None:
        return Cell("–", {column_ending: None})
    return Cell(f"{value:,.{decimals}f}", {column_ending: value}, value)


def text_cell(text: str, **values: Value) -> Cell:
    """Return a cell with plain text, which is also its value."""
    return Cell(text, {"": text, **values}, text)
