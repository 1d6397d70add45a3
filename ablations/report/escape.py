"""Escaping of text that a user chose (arms, classes, data sets, questions, errors), for every format of the report.

Pictures use `figure_text` of `pictures/text.py`; file names use `cnnjepa.names.file_name`.
"""

import html
import re
import unicodedata

from cnnjepa.ablations.report.tables.table import Value
from cnnjepa.names import escaped, markdown_text, one_line, shortened, visible

__all__ = ["csv_value", "html_text", "latex_text", "markdown_text", "plotly_text"]

# Characters that pdfLaTeX's fonts lack or that it reads as commands. At the beginning of a row, `[` and `*` would be
# read as arguments of `\\` and `\midrule`.
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "|": "$|$",
    "[": "{[}", "]": "{]}", "*": "{*}", '"': r"{\char34}",
    "±": r"$\pm$", "−": "$-$", "×": r"$\times$", "†": r"\textdagger{}", "≥": r"$\geq$", "≤": r"$\leq$",
    "≈": r"$\approx$",
    "–": "--", "—": "---", "…": r"\ldots{}", "√": r"$\surd$", "“": "``", "”": "''", "‘": "`", "’": "'", "→": r"$\to$",
    "·": r"$\cdot$", "°": r"$^\circ$", "²": "$^2$", "³": "$^3$", "\u00a0": "~",
    "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}", "ø": r"\o{}", "Ø": r"\O{}",
    "ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}",
    "α": r"$\alpha$", "β": r"$\beta$", "γ": r"$\gamma$", "δ": r"$\delta$", "ε": r"$\varepsilon$", "η": r"$\eta$",
    "θ": r"$\theta$", "κ": r"$\kappa$", "λ": r"$\lambda$", "μ": r"$\mu$", "µ": r"$\mu$", "π": r"$\pi$", "ρ": r"$\rho$",
    "σ": r"$\sigma$", "τ": r"$\tau$", "φ": r"$\varphi$", "ω": r"$\omega$",
}  # fmt: skip
_LATEX_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0308": '"', "\u0304": "=", "\u0306": "u", 
    "\u0307": ".", "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c",
}  # fmt: skip

# Characters that a spreadsheet reads as the beginning of a formula, including full-width forms.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def latex_text(text: str) -> str:
    """Return LaTeX that pdfLaTeX sets as the text. A letter that its fonts lack becomes its code: `\\u732b`."""
    letters = unicodedata.normalize("NFC", one_line(text))
    apart = re.sub(r"(?<=[-'`,?!])(?=[-'`,])", "\0", letters)  # pairs that fonts join, such as two hyphens to a dash
    return "".join("{}" if letter == "\0" else _latex_letter(letter) for letter in apart)


def _latex_letter(letter: str) -> str:
    if letter in _LATEX:
        return _LATEX[letter]
    if letter.isascii():
        return letter
    base, *marks = list(unicodedata.normalize("NFD", letter))
    if len(marks) == 1 and marks[0] in _LATEX_ACCENTS and base.isascii() and base.isalpha():
        return rf"\{_LATEX_ACCENTS[marks[0]]}{{{chr(92) + base if base in 'ij' else base}}}"
    return rf"\textbackslash{{}}{escaped(letter)[1:]}"


def html_text(text: str) -> str:
    """Return text for an element or a quoted attribute."""
    return html.escape(visible(text, lines=True))


def plotly_text(label: str) -> str:
    """Return a label for plotly, which interprets some HTML. A label that would leave the plot no room is shortened."""
    return html.escape(shortened(one_line(label)), quote=False)


def csv_value(value: Value) -> Value:
    """Return a cell that no spreadsheet executes: text that begins like a formula gets an apostrophe in front. Numbers
    stay numbers, also those written as text."""
    if isinstance(value, str) and value.startswith(_FORMULA) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return "" if value is None else value
