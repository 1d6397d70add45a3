"""Standard output and standard error: encodings, widths, and consoles that print names unchanged."""

import codecs
import os
import sys
import unicodedata
from collections.abc import Iterable
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from cnnjepa.names import escaped, visible

_HANDLER = "cnnjepa-ascii"
_ASCII = {
    "±": "+-", "×": "x", "…": "...", "–": "-", "—": "-", "−": "-", "‑": "-", "→": "->", "←": "<-", "≥": ">=", "≤": "<=",
    "≈": "~", "·": "*", "•": "*", "“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "«": "<<", "»": ">>", "√": "sqrt",
    "τ": "tau", "β": "beta", "ε": "eps", "λ": "lambda", "σ": "sigma", "μ": "u", "µ": "u", "°": "deg", "†": "+",
    "\u00a0": " ", "─": "-", "━": "-", "═": "=", "╸": "-", "╺": "-", "│": "|", "┃": "|", "║": "|", "█": "#", "■": "#",
}  # fmt: skip
_WITHOUT_TERMINAL = 160  # columns of a table in a file


def prepare_streams() -> None:
    """Make standard output and error replace characters that they cannot encode with ASCII, so that they never raise an
    error. Remove a `COLUMNS` or `LINES` that is not a size from the environment, also for the libraries that read
    it."""
    for name in ("COLUMNS", "LINES"):
        if not _is_size(os.environ.get(name, "80")):
            del os.environ[name]
    codecs.register_error(_HANDLER, _substitute)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=_HANDLER)


def _substitute(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(ascii_for, error.object[error.start : error.end])), error.end


def ascii_for(letter: str) -> str:
    """Return `+-` for `±`, `e` for `é`, `\\u732b` for a letter that has no equivalent."""
    if letter in _ASCII:
        return _ASCII[letter]
    if "\u2500" <= letter <= "\u257f":
        return "+"  # corners and crossings of boxes
    plain = "".join(part for part in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(part))
    return plain if plain and plain.isascii() else escaped(letter)


def console(stderr: bool = False) -> Console:
    """Return a console that takes every text literally: `[x]` and `:smile:` are not markup. Styles come from `Text`
    alone."""
    environ = dict(os.environ)
    if "COLUMNS" not in environ and not any(map(_terminal, (sys.__stdin__, sys.__stdout__, sys.__stderr__))):
        environ["COLUMNS"] = str(_WITHOUT_TERMINAL)
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, _environ=environ)


def _is_size(text: str) -> bool:
    return text.isdigit() and int(text) > 0


def _terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # None, or closed
        return False


def is_live(where: Console) -> bool:
    """Return whether bars and tables can be redrawn there, on a terminal that moves its cursor. A file with
    `FORCE_COLOR` cannot redraw, and neither can `TERM=dumb`."""
    return where.is_interactive and not where.is_dumb_terminal and _terminal(where.file)


def say(where: Console, *parts: str | tuple[str, str]) -> None:
    """Print one line without line breaks. Each part is text, or text and style."""
    pairs = [(part, "") if isinstance(part, str) else part for part in parts]
    where.print(Text.assemble(*((visible(text), style) for text, style in pairs)), soft_wrap=True)


def say_list(where: Console, parts: Iterable[str], between: str = ", ", indent: int = 0) -> None:
    """Print parts on as few lines as fit the width. No part is broken; every line but the first is indented."""
    line = ""
    for part in parts:
        longer = f"{line}{between}{part}" if line.strip() else f"{line}{part}"
        if line.strip() and cell_len(longer) > where.width:
            say(where, f"{line}{between}".rstrip())
            longer = " " * indent + part
        line = longer
    say(where, line)
