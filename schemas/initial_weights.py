"""The weights with which an encoder starts: the forms of `encoder.init`."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator

from cnnjepa.schemas.paths import user_path

FORMS = "random, imagenet, RUN, HASH, FILE, timm:NAME or hf:FOLDER"
"""The forms in words, for messages."""

HASH_BEGINNING = re.compile(r"^[0-9a-f]{4,64}$")

Kind = Literal["random", "imagenet", "timm", "folder", "path"]
_PREFIXES: dict[str, Kind] = {"timm:": "timm", "hf:": "folder"}


class InitReference(NamedTuple):
    """A value of `encoder.init`, taken apart."""

    kind: Kind
    """`path`: a run folder, a run's hash, or a file."""
    name: str
    """The part after the prefix."""


def init_reference(text: str) -> InitReference:
    """Return the kind of a value of `encoder.init`, and its name without the prefix."""
    if text in ("random", "imagenet"):
        return InitReference("random" if text == "random" else "imagenet", text)
    for prefix, kind in _PREFIXES.items():
        if text.startswith(prefix):
            return InitReference(kind, text.removeprefix(prefix))
    return InitReference("path", text)


def _checked(given: Any) -> Any:
    """Return the text with `~` replaced in a path. Raises ValueError for a prefix without a name and for empty text."""
    if isinstance(given, Path):
        given = os.fspath(given)
    if not isinstance(given, str):
        return given
    kind, name = init_reference(given)
    if not name:
        raise ValueError(f"{given!r} names no weights; must be one of {FORMS}")
    if kind == "folder":
        return f"hf:{user_path(name)}"
    return os.fspath(user_path(name)) if kind == "path" else given


Init = Annotated[str, BeforeValidator(_checked)]
