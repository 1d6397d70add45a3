"""A table as Markdown, CSV, LaTeX and HTML."""

import csv
import io
import re
from html import escape

from cnnjepa.ablations.report.table import Cell, Column, Table

# What pdfLaTeX's fonts lack, or treats as a command.
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "|": "$|$",
    "±": r"$\pm$", "−": "$-$", "×": r"$\times$", "τ": r"$\tau$", "†": r"\textdagger{}", "≥": r"$\geq$", "≤": r"$\leq$",
    "–": "--", "…": r"\ldots{}", "√": r"$\surd$", "“": "``", "”": "''", "→": r"$\to$", "·": r"$\cdot$",
}  # fmt: skip


def markdown(table: Table) -> str:
    """A pipe table under its caption, notes below."""
    lines = [f"**{table.caption}**", ""]
    lines.append("| " + " | ".join(plain(column.header) for column in table.columns) + " |")
    lines.append("|" + "|".join("---:" if column.numeric else "---" for column in table.columns) + "|")
    for row in table.rows:
        lines.append("| " + " | ".join(_piped(cell) for cell in row) + " |")
    return "\n".join([*lines, "", *[f"{plain(note)}\n" for note in table.notes]]).rstrip() + "\n"


def plain(text: str) -> str:
    """Text that Markdown takes as it stands."""
    return re.sub(r"([|*_<>`\\\[\]])", r"\\\1", text.replace("\n", " "))


def _piped(cell: Cell) -> str:
    text = plain(cell.text)
    text = f"**{text}**" if cell.tone in ("better", "worse") else text
    return f"{text} {plain(cell.below)}" if cell.below else text


def comma_separated(table: Table) -> str:
    """Every value in full, one a column; an empty field where there is none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.csv_header())
    for row in table.rows:
        writer.writerow(["" if value is None else value for value in table.csv_row(row)])
    return text.getvalue()


def latex(table: Table) -> str:
    """A booktabs table, shrunk to the text's width where it is wider."""
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
    """The table alone, to be opened or pasted: without the page's links and script."""
    head = "".join(f"<th>{escape(column.header)}</th>" for column in table.columns)
    lines = [[" ".join(filter(None, (cell.text, cell.below))) for cell in row] for row in table.rows]
    rows = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in line) + "</tr>\n" for line in lines)
    notes = "".join(f"<p>{escape(note)}</p>\n" for note in table.notes)
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(table.name)}</title>\n'
        "<style>body{font:15px/1.4 system-ui,sans-serif}table{border-collapse:collapse}"
        "th,td{padding:.3em .6em;border-bottom:1px solid #bbb;text-align:left}caption{text-align:left;font-weight:600}"
        f"</style>\n<table><caption>{escape(table.caption)}</caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{rows}</tbody></table>\n{notes}</html>\n"
    )


def latex_document(names: list[str], title: str) -> str:
    """A document that holds the tables `names` of the folder `tables/`, to be compiled as it is."""
    return "\n".join(
        [
            r"\documentclass[10pt]{article}", r"\usepackage[a4paper,landscape,margin=15mm]{geometry}",
            r"\usepackage[utf8]{inputenc}", r"\usepackage{booktabs,graphicx}",
            r"\begin{document}", rf"\section*{{{latex_text(title)}}}",
            *[rf"\input{{tables/{name}.tex}}" for name in names], r"\end{document}", "",
        ]
    )  # fmt: skip


def latex_text(text: str) -> str:
    """Escaped; anything else that pdfLaTeX's fonts lack becomes a question mark."""
    plain = "".join(_LATEX.get(letter, letter) for letter in text)
    return "".join(letter if ord(letter) < 0x250 else "?" for letter in plain)


def _latex_cell(cell: Cell, column: Column) -> str:
    """One line, or two where there is a smaller second one, so that the table stays narrow."""
    text = latex_text(cell.text)
    text = rf"\textbf{{{text}}}" if cell.tone in ("better", "worse") else text
    side = "r" if column.numeric else "l"
    below = rf"{text} \\[-2pt] {{\scriptsize {latex_text(cell.below)}}}"
    return rf"\begin{{tabular}}[t]{{@{{}}{side}@{{}}}}{below}\end{{tabular}}" if cell.below else text


def html(table: Table) -> str:
    """A sortable, filterable figure; the page's script does both. Cells with runs lead to their trials."""
    head = "".join(_head(place, column) for place, column in enumerate(table.columns))
    body = "".join(f"<tr>{_cells(table, row)}</tr>\n" for row in table.rows)
    notes = "".join(f"<p>{escape(note)}</p>" for note in table.notes)
    name = escape(table.name)
    return (
        f'<figure class="table" id="table-{name}"><figcaption>{escape(table.caption)}</figcaption>'
        f'<div class="filter"><label>Filter <input type="search" data-filters="{name}"></label> '
        f'<span class="count" aria-live="polite"></span></div>\n'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.caption)}">'
        f'<table data-name="{name}"><thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>'
        f'<div class="notes">{notes}</div></figure>\n'
    )


def _head(place: int, column: Column) -> str:
    classes = " ".join(filter(None, ("number" if column.numeric else "", "" if column.latex else "screen")))
    kind = f' class="{classes}"' if classes else ""
    header = escape(column.header).replace("-", "\u2011").replace(", %", ",\u00a0%")  # not broken into two lines
    return (
        f'<th scope="col"{kind} aria-sort="none" data-key="{escape(column.key)}">'
        f'<button type="button" data-sorts="{place}">{header}</button></th>'
    )


def _cells(table: Table, row: tuple[Cell, ...]) -> str:
    return "".join(_cell(cell, table.columns[place], place) for place, cell in enumerate(row))


def _cell(cell: Cell, column: Column, place: int) -> str:
    screen = "" if column.latex else "screen"  # too wide for paper, as for LaTeX
    classes = " ".join(filter(None, ("number" if column.numeric else "", screen, cell.tone)))
    attributes = f' class="{classes}"' if classes else ""
    if cell.sort is not None:
        attributes += f' data-sort="{escape(str(cell.sort))}"'
    if cell.note:
        attributes += f' title="{escape(cell.note)}"'
    text = f"<span>{escape(cell.text)}</span>"
    if len(cell.runs) == 1:
        text = f'<a href="#trial/{cell.runs[0]}">{text}</a>'
    elif cell.runs:
        text = f'<a href="#runs/{",".join(cell.runs)}">{text}</a>'
    text += f"<small>{escape(cell.below)}</small>" if cell.below else ""
    return f'<th scope="row"{attributes}>{text}</th>' if place == 0 else f"<td{attributes}>{text}</td>"
