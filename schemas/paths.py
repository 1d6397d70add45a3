"""Paths as a person writes them."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator


def user_path(given: str | Path) -> Path:
    """The path with a leading `~` or `~user` replaced by that home, which no shell does in YAML or in `--data=~/d`.
    A file named `~user` in the working
    directory is that file. Raises ValueError where there is no such home, and for a null character."""
    text = os.fspath(given)
    if "\0" in text:
        raise ValueError(f"{text!r} holds a null character, which no path has")
    home, *_ = text.split("/", 1)
    if not home.startswith("~") or (home != "~" and os.path.lexists(home)):
        return Path(given)
    expanded = os.path.expanduser(text)
    if expanded == text:
        raise ValueError(f"{text}: there is no home directory {home}; write the path from / on")
    return Path(expanded)


def _expanded(given: object) -> object:
    return user_path(given) if isinstance(given, str | Path) else given


UserPath = Annotated[Path, BeforeValidator(_expanded)]
