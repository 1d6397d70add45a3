"""Write the references that come from the code, docs/config.md and docs/cli.md, and the tables that come from results.

`make docs` writes them; a test compares them with what this would write. See `results_tables` for the tables.
"""

import re
import sys
from pathlib import Path
from typing import Any

import typer
from results_tables import with_tables

from cnnjepa.cli.app import app
from cnnjepa.schemas.reference import config_reference

HERE = Path(__file__).parent

HEAD = """# Command reference

Written by `make docs` from the commands themselves.

This page lists every command with its arguments and options. An option may be given once, except those marked as
repeatable.

Exit codes: 0 done; 1 failed while running; 2 invalid request; 3 the features collapsed; 75 stopped by a signal or
`--max-hours` with a checkpoint: `train --resume`, or the same command of a study or search, resumes.
"""


def cli_reference() -> str:
    """Return the command reference as Markdown: every command with its arguments, options and example."""
    return HEAD + "".join(_command(("cnnjepa",), typer.main.get_command(app)))


def _command(path: tuple[str, ...], command: Any) -> list[str]:
    inner = getattr(command, "commands", {})
    lines = []
    if len(path) > 1:
        lines += [f"\n## `{' '.join(path)}`\n\n", f"{_text(command.help)}\n"]
        rows = [row for p in command.params if (row := _parameter(p))]
        lines += ["\n", *rows] if rows else []
        if command.epilog:
            lines.append(f"\n    {command.epilog.removeprefix('Example:').strip()}\n")
    for name, sub in inner.items():
        lines += [] if sub.hidden else _command((*path, name), sub)
    return lines


def _parameter(parameter: Any) -> str | None:
    if parameter.name == "help":
        return None
    names = ", ".join(f"`{o}`" for o in parameter.opts) if parameter.param_type_name == "option" else (
        f"`{parameter.metavar or parameter.name.upper()}`"
    )  # fmt: skip
    return f"- {names}: {_text(getattr(parameter, 'help', '') or '')}\n"


def _text(text: str | None) -> str:
    return "\n\n".join(" ".join(part.split()) for part in (text or "").split("\n\n"))


def references() -> dict[Path, str]:
    """Return the text that each generated file should hold."""
    config = re.sub(r"docs/(sources\.md#([a-z0-9-]+))", r"[\2](\1)", config_reference())
    pages = [HERE / "reproduction.md", HERE / "labels.md"]
    return {
        HERE / "config.md": config,
        HERE / "cli.md": cli_reference(),
        **{page: with_tables(page.read_text(encoding="utf-8")) for page in pages},
    }


if __name__ == "__main__":
    for path, text in references().items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(HERE.parent)}", file=sys.stderr)
