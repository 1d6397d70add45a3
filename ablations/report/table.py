"""A table before it is written in any format."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Value = float | int | str | None


@dataclass(frozen=True)
class Cell:
    """What people read, and the values behind it."""

    text: str
    values: Mapping[str, Value] = field(default_factory=dict)
    """Ending of a CSV column's name → value in full; the ending `` is the column's own name."""
    sort: float | str | None = None
    """What the page sorts by; None sorts last."""
    tone: Literal["", "better", "worse", "quiet", "bad", "strong"] = ""
    note: str = ""
    """What the page shows on hovering."""
    runs: tuple[str, ...] = ()
    """Short hashes of the trials that the cell comes from."""
    below: str = ""
    """A smaller second line, such as the interval."""


@dataclass(frozen=True)
class Column:
    """A column; its CSV columns begin with `key`."""

    key: str
    header: str
    endings: tuple[str, ...] = ("",)
    """The CSV columns that it becomes."""
    numeric: bool = True
    latex: bool = True
    """Whether it is in the LaTeX table, which has to fit a page."""


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns."""

    name: str
    """File name without ending."""
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    """Sentences below it."""

    def csv_header(self) -> list[str]:
        """Names of the CSV columns."""
        return ["_".join(filter(None, (c.key, ending))) for c in self.columns for ending in c.endings]

    def csv_row(self, row: tuple[Cell, ...]) -> list[Value]:
        """The values of one row under `csv_header`."""
        return [cell.values.get(ending) for c, cell in zip(self.columns, row, strict=True) for ending in c.endings]


def number(value: float | None, decimals: int, column_ending: str = "") -> Cell:
    """A plain number, or a dash where there is none."""
    if value is None:
        return Cell("–", {column_ending: None})
    return Cell(f"{value:,.{decimals}f}", {column_ending: value}, value)


def words(text: str, **values: Value) -> Cell:
    """Plain text, which is its own value."""
    return Cell(text, {"": text, **values}, text)
