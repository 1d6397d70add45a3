"""Paths in the form in which users write them."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator


def user_path(given: str | Path) -> Path:
    """Return the path with a leading `~` or `~user` replaced by that home folder. No shell does so in YAML or in
    `--data=~/d`. If the working directory has a file named `~user`, that file is meant. Raises ValueError if there is
    no such home folder, for a null character, and for bytes that are not UTF-8, which no result or study can hold."""
    text = os.fspath(given)
    if "\0" in text:
        raise ValueError(f"{text!r} holds a null character, which no path has")
    if not text.isascii() and any("\udc80" <= letter <= "\udcff" for letter in text):
        raise ValueError(f"{os.fsencode(text)!r} is not UTF-8, in which results are written; rename it")
    home, *_ = text.split("/", 1)
    if not home.startswith("~") or (home != "~" and os.path.lexists(home)):
        return Path(given)
    expanded = os.path.expanduser(text)
    if expanded == text:
        raise ValueError(f"{text}: there is no home directory {home}; write the path from / on")
    return Path(expanded)


def _expanded(given: object) -> object:
    # Text remains text: while Pydantic reads JSON, a `Path` is not a valid input for the type `Path`.
    if isinstance(given, str):
        return os.fspath(user_path(given))
    return user_path(given) if isinstance(given, Path) else given


UserPath = Annotated[Path, BeforeValidator(_expanded)]
