"""A table as Markdown, CSV, LaTeX and HTML."""

import csv
import io
import re
import textwrap

from cnnjepa.ablations.report.escape import csv_value, html_text, latex_text, markdown_text
from cnnjepa.ablations.report.tables.table import Cell, Column, Table
from cnnjepa.names import one_line

_LATEX_WIDTH = 60  # characters per line of a cell


def markdown(table: Table) -> str:
    """Return a pipe table below its caption, with the notes at the end."""
    lines = [f"**{markdown_text(table.caption)}**", ""]
    lines.append("| " + " | ".join(markdown_text(column.header) for column in table.columns) + " |")
    lines.append("|" + "|".join("---:" if column.numeric else "---" for column in table.columns) + "|")
    for row in table.rows:
        lines.append("| " + " | ".join(_piped(cell) for cell in row) + " |")
    return "\n".join([*lines, "", *[f"{markdown_text(note)}\n" for note in table.notes]]).rstrip() + "\n"


def _piped(cell: Cell) -> str:
    text = markdown_text(cell.text)
    text = f"**{text}**" if cell.tone in ("better", "worse") else text
    return f"{text} {markdown_text(cell.below)}" if cell.below else text


def comma_separated(table: Table) -> str:
    """Return every value in full, one per column; an empty field if there is none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.csv_header())
    for row in table.rows:
        writer.writerow([csv_value(value) for value in table.csv_row(row)])
    return text.getvalue()


def latex(table: Table) -> str:
    """Return a booktabs table, shrunk to the text's width if it is wider."""
    places = [place for place, column in enumerate(table.columns) if column.latex]
    spec = "".join("r" if table.columns[place].numeric else "l" for place in places)
    lines = [
        r"\begin{table}[htbp]", r"\centering", rf"\caption{{{latex_text(table.caption)}}}",
        rf"\label{{tab:{re.sub('[^A-Za-z0-9]+', '-', table.name)}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{spec}}}", r"\toprule",
        " & ".join(latex_text(table.columns[place].header) for place in places) + r" \\", r"\midrule",
        *[" & ".join(_latex_cell(row[place], table.columns[place]) for place in places) + r" \\" for row in table.rows],
        r"\bottomrule", r"\end{tabular}}",
    ]  # fmt: skip
    if table.notes:
        lines.append(r"\par\smallskip\begin{minipage}{\linewidth}\footnotesize")
        lines += [latex_text(note) + r"\par" for note in table.notes]
        lines.append(r"\end{minipage}")
    return "\n".join([*lines, r"\end{table}", ""])


def html_document(table: Table) -> str:
    """Return an HTML file with the table alone, to be opened or pasted, without the page's links and script."""
    head = "".join(f"<th>{html_text(column.header)}</th>" for column in table.columns)
    lines = [[" ".join(filter(None, (cell.text, cell.below))) for cell in row] for row in table.rows]
    rows = "".join("<tr>" + "".join(f"<td>{html_text(text)}</td>" for text in line) + "</tr>\n" for line in lines)
    notes = "".join(f"<p>{html_text(note)}</p>\n" for note in table.notes)
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{html_text(table.name)}</title>\n'
        "<style>body{font:15px/1.4 system-ui,sans-serif}table{border-collapse:collapse}"
        "th,td{padding:.3em .6em;border-bottom:1px solid #bbb;text-align:left}caption{text-align:left;font-weight:600}"
        f"</style>\n<table><caption>{html_text(table.caption)}</caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{rows}</tbody></table>\n{notes}</html>\n"
    )


def latex_document(names: list[str], title: str) -> str:
    """Return a LaTeX document that includes the tables `names` of the folder `tables/` and compiles as it is."""
    return "\n".join(
        [
            r"\documentclass[10pt]{article}", r"\usepackage[a4paper,landscape,margin=15mm]{geometry}",
            r"\usepackage[utf8]{inputenc}", r"\usepackage{booktabs,graphicx}",
            r"\begin{document}", rf"\section*{{{latex_text(title)}}}",
            *[rf"\input{{tables/{name}.tex}}" for name in names], r"\end{document}", "",
        ]
    )  # fmt: skip


def _latex_cell(cell: Cell, column: Column) -> str:
    """Return a cell of one line, or of several if the text is long or has a smaller second line. This keeps the table
    narrow."""
    lines = [latex_text(line) for line in textwrap.wrap(one_line(cell.text), _LATEX_WIDTH) or [""]]
    lines = [rf"\textbf{{{line}}}" if cell.tone in ("better", "worse") else line for line in lines]
    text = r" \\ ".join(lines) + (rf" \\[-2pt] {{\scriptsize {latex_text(cell.below)}}}" if cell.below else "")
    side = "r" if column.numeric else "l"
    several = len(lines) > 1 or cell.below
    return rf"\begin{{tabular}}[t]{{@{{}}{side}@{{}}}}{text}\end{{tabular}}" if several else text


def html(table: Table) -> str:
    """Return a figure that the page's script makes sortable and filterable. Cells with runs link to their trials."""
    head = "".join(_head(place, column) for place, column in enumerate(table.columns))
    body = "".join(f"<tr>{_cells(table, row)}</tr>\n" for row in table.rows)
    notes = "".join(f"<p>{html_text(note)}</p>" for note in table.notes)
    name = html_text(table.name)
    return (
        f'<figure class="table" id="table-{name}"><figcaption>{html_text(table.caption)}</figcaption>'
        f'<div class="filter"><label>Filter <input type="search" data-filters="{name}"></label> '
        f'<span class="count" aria-live="polite"></span></div>\n'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{html_text(table.caption)}">'
        f'<table data-name="{name}"><thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>'
        f'<div class="notes">{notes}</div></figure>\n'
    )


def _head(place: int, column: Column) -> str:
    classes = " ".join(filter(None, ("number" if column.numeric else "", "" if column.latex else "screen")))
    kind = f' class="{classes}"' if classes else ""
    # a header does not break into two lines
    header = html_text(column.header).replace("-", "\u2011").replace(", %", ",\u00a0%")
    return (
        f'<th scope="col"{kind} aria-sort="none" data-key="{html_text(column.key)}">'
        f'<button type="button" data-sorts="{place}">{header}</button></th>'
    )


def _cells(table: Table, row: tuple[Cell, ...]) -> str:
    return "".join(_cell(cell, table.columns[place], place) for place, cell in enumerate(row))


def _cell(cell: Cell, column: Column, place: int) -> str:
    screen = "" if column.latex else "screen"  # too wide for paper, as in LaTeX
    classes = " ".join(filter(None, ("number" if column.numeric else "", screen, cell.tone)))
    attributes = f' class="{classes}"' if classes else ""
    if cell.sort is not None:
        attributes += f' data-sort="{html_text(str(cell.sort))}"'
    if cell.note:
        attributes += f' title="{html_text(cell.note)}"'
    text = f"<span>{html_text(cell.text)}</span>"
    if len(cell.runs) == 1:
        text = f'<a href="#trial/{cell.runs[0]}">{text}</a>'
    elif cell.runs:
        text = f'<a href="#runs/{",".join(cell.runs)}">{text}</a>'
    text += f"<small>{html_text(cell.below)}</small>" if cell.below else ""
    return f'<th scope="row"{attributes}>{text}</th>' if place == 0 else f"<td{attributes}>{text}</td>"
