"""Tables of `cnnjepa evaluate`."""

from collections.abc import Sequence

from cnnjepa.ablations.encoder_comparison import EncoderCell, SetTable, set_tables
from cnnjepa.cli.sheet import Cell, Sheet
from cnnjepa.cli.terminal import console, say
from cnnjepa.commands import quoted
from cnnjepa.evaluation.run import Evaluated, PlannedTask

_STYLES = {"better": "green", "worse": "red"}


def plan_sheet(planned: Sequence[PlannedTask]) -> Sheet:
    """Return a table of the tasks, and whether each is done."""
    sheet = Sheet(("task", "encoder", "set", "state"), folding=(0, 1, 2), left=(0, 1, 2, 3))
    for one in planned:
        state = "done" if one.found() else "to do"
        sheet.add(one.settings.name, one.encoder.label, one.images.name, state)
    return sheet


def print_results(done: Sequence[Evaluated]) -> None:
    """Print one table per set, the notes, and where the results are."""
    out = console()
    for table in set_tables(done):
        out.print(_sheet(table))
        for note in table.notes:
            say(out, (f"  {note}", "dim"))
        out.line()
    folders = dict.fromkeys(one.planned.store.folder for one in done)
    say(out, "Files:  " + "  ".join(map(quoted, folders)))


def _sheet(table: SetTable) -> Sheet:
    classes = f", {table.classes:,} classes" if table.classes else ""
    caption = "% [95 % interval]"
    if len(table.encoders) > 1:
        caption += "; below: difference from the first encoder in points, paired, verdicts at 5 % over the table (Holm)"
    sheet = Sheet(
        ("task, figure", *table.encoders),
        title=((table.dataset, "bold"), f"{classes}, {table.train_images:,} + {table.val_images:,} images"),
        caption=caption,
    )
    for row in table.rows:
        sheet.add(f"{row.task}, {row.name}", *(_lines(cell) for cell in row.cells))
    return sheet


def _lines(cell: EncoderCell | None) -> list[Cell]:
    if cell is None:
        return ["-"]
    figure, difference = cell.figure, cell.difference
    lines: list[Cell] = [f"{figure.value:.1f}{_interval(figure.low, figure.high)}"]
    if difference and difference.mean is not None:
        verdict = "not distinguishable" if difference.verdict == "indistinguishable" else difference.verdict
        lines.append((f"{difference.mean:+.1f}{_interval(difference.low, difference.high)}", "dim"))
        lines.append((verdict, _STYLES.get(verdict, "dim")))
    return lines


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{low:.1f}, {high:.1f}]"
