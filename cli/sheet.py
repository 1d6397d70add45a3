"""A table for a terminal of any width. Numbers are never cut, and long names fold. A narrow terminal gets a block of
lines for every row."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from cnnjepa.names import visible

Cell = str | tuple[str, str]
"""Text, or text and style."""

_NARROWEST = 16  # columns that a folded name needs to be readable
_GAP = 2


@dataclass
class Sheet:
    """Rows under headers. The first column and those of `folding` hold names; the others hold figures."""

    headers: tuple[str, ...]
    """Headers, with line ends where they are to be broken."""
    title: tuple[Cell, ...] = ()
    caption: str = ""
    folding: tuple[int, ...] = (0,)
    """Indices of the columns that may be folded."""
    left: tuple[int, ...] = (0,)
    """Indices of the columns that are aligned to the left."""
    rows: list[tuple[Text, ...] | None] = field(default_factory=list)
    """Rows; None stands for a horizontal line."""

    def add(self, *cells: Cell | list[Cell]) -> None:
        """Add a row. A list is a cell of several lines."""
        self.rows.append(
            tuple(Text("\n").join(map(_text, cell if isinstance(cell, list) else [cell])) for cell in cells)
        )

    def rule(self) -> None:
        """Add a line between the rows above and below."""
        self.rows.append(None)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table if it fits, else the blocks."""
        if self.title:
            yield _joined(self.title)
        yield from [self._table()] if self._least_width() <= options.max_width else self._blocks(options.max_width)
        if self.caption:
            yield Text(self.caption, style="dim italic")

    def _widths(self) -> list[int]:
        rows = [row for row in self.rows if row is not None]
        return [
            max(cell_len(line) for text in (header, *(row[place].plain for row in rows)) for line in text.split("\n"))
            for place, header in enumerate(self.headers)
        ]

    def _least_width(self) -> int:
        widths = [
            min(width, _NARROWEST) if place in self.folding else width for place, width in enumerate(self._widths())
        ]
        return sum(widths) + _GAP * (len(widths) - 1)

    def _table(self) -> Table:
        # The box adds one space between columns.
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0))
        for place, (header, width) in enumerate(zip(self.headers, self._widths(), strict=True)):
            folds = place in self.folding
            table.add_column(
                Text(header), justify="left" if place in self.left else "right", no_wrap=not folds,
                overflow="fold", min_width=min(width, _NARROWEST) if folds else width,
            )  # fmt: skip
        for row in self.rows:
            if row is None:
                table.add_section()
            else:
                table.add_row(*row)
        return table

    def _blocks(self, width: int) -> Iterable[Text]:
        for row in self.rows:
            if row is None:
                continue
            if row[0].plain:
                yield Text.assemble(row[0], style="bold", overflow="fold")
            line = Text()
            for header, cell in zip(self.headers[1:], row[1:], strict=True):
                if not cell.plain:
                    continue
                pair = Text.assemble((f"{header} ".replace("\n", " ").lstrip(), "dim"), cell)
                if line and line.cell_len + _GAP + pair.cell_len > width - 2:
                    yield _indented(line)
                    line = Text()
                line = Text.assemble(line, " " * _GAP if line else "", pair)
            if line:
                yield _indented(line)


def _text(cell: Cell) -> Text:
    text, style = (cell, "") if isinstance(cell, str) else cell
    return Text(visible(text), style=style)


def _joined(parts: Iterable[Cell]) -> Text:
    return Text.assemble(*map(_text, parts), overflow="fold")


def _indented(line: Text) -> Text:
    return Text.assemble("  ", line, overflow="fold")
