"""Samples of a WebDataset shard: members of a tar archive that follow each other and share a key.

The key of a member is its path up to the first dot of the file name, and the field is what follows, in lower case:
`0001.jpg` and `0001.cls` are the fields `jpg` and `cls` of the sample `0001`. Members whose file name begins with a
dot, and those of a folder called `__…__`, belong to no sample.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cnnjepa.data.scan import EXTENSIONS, Reason, Scanning, is_image
from cnnjepa.data.tar_members import members

_KEY = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")
_META = re.compile(r"__[^/]*__($|/)")
_IMAGES = tuple(ending.removeprefix(".") for ending in EXTENSIONS)
_LABELS = ("cls", "json")
# Names of the label in a sample's JSON, in the order in which they are looked for.
_NAMES = ("label", "cls", "class", "class_id", "class_name", "category", "target")
_PEEK = 16  # members read to recognise a shard


class _Field(NamedTuple):
    name: str
    path: str
    offset: int
    size: int
    sparse: bool


def is_webdataset(shard: Path) -> bool:
    """Return whether one of the first samples of a shard has an image and a label. Raises one of `UNREADABLE`."""
    with open(shard, "rb") as file:
        read = 0
        for _, fields in _samples(file):
            names = {field.name for field in fields}
            if any(is_image(f".{name}") for name in names) and names & set(_LABELS):
                return True
            read += len(fields)
            if read >= _PEEK:
                return False
    return False


def scan_samples(shard: Path, number: int, prefix: str, scanning: Scanning) -> None:
    """Record the images of a shard, with their classes, as `prefix` and the member's path. The label of a sample is
    the text of its field `cls`, or the value called `label` (or `cls`, `class`, `class_id`, …) in its field `json`.

    Raises one of `UNREADABLE`, and ValueError for a sample with two fields of the same name or a damaged `json`.
    """
    with open(shard, "rb") as file:
        for key, fields in _samples(file, prefix, scanning):
            images = sorted((field for field in fields if is_image(f".{field.name}")), key=_preference)
            for field in images[1:]:
                scanning.left_out.add(Reason.SAMPLE, f"{prefix}{field.path}")
            if not images:
                scanning.left_out.add(Reason.ENDING, f"{prefix}{fields[0].path}")
            elif images[0].sparse:
                scanning.left_out.add(Reason.SPARSE, f"{prefix}{images[0].path}")
            else:
                image, label = images[0], _label(file.fileno(), key, fields)
                scanning.file(f"{prefix}{image.path}", image.size, image.offset, number, label)


def _samples(file: object, prefix: str = "", scanning: Scanning | None = None) -> Iterator[tuple[str, list[_Field]]]:
    """Yield every sample: its key and its fields. Members outside samples are recorded in `scanning`, if given."""
    key, fields = "", list[_Field]()
    for _, member in members(file):  # type: ignore[arg-type]
        name = member.name.removeprefix("./")
        if not member.isreg():
            if scanning and not member.isdir():
                scanning.left_out.add(Reason.SPECIAL, f"{prefix}{name}")
            continue
        parts = name.split("/")
        hidden = next((depth for depth, part in enumerate(parts) if part.startswith(".") or part == "__MACOSX"), None)
        found = _KEY.fullmatch(name)
        if hidden is not None or _META.match(name) or not found:
            if scanning and hidden is not None:
                scanning.passes_over(f"{prefix}{'/'.join(parts[: hidden + 1])}", folder=hidden + 1 < len(parts))
            elif scanning and not _META.match(name):
                scanning.left_out.add(Reason.ENDING, f"{prefix}{name}")
            continue
        field = _Field(found[2].lower(), name, member.offset_data, member.size, member.issparse())
        if found[1] != key and fields:
            yield key, fields
            fields = []
        key = found[1]
        if any(field.name == other.name for other in fields):
            raise ValueError(f"the sample {key!r} has two fields called {field.name!r}")
        fields.append(field)
    if fields:
        yield key, fields


def _preference(field: _Field) -> int:
    """Return the place of an image among those of its sample: `jpg` before `seg.png`."""
    return _IMAGES.index(field.name) if field.name in _IMAGES else len(_IMAGES)


def _label(descriptor: int, key: str, fields: list[_Field]) -> str:
    """Return the label of a sample; empty if it has none."""
    by_name = {field.name: field for field in fields}
    if field := by_name.get("cls"):
        return os.pread(descriptor, field.size, field.offset).decode("utf-8", "replace").strip()
    if field := by_name.get("json"):
        try:
            content = json.loads(os.pread(descriptor, field.size, field.offset))
        except ValueError as error:
            raise ValueError(f"{field.path} is no JSON ({error})") from None
        if not isinstance(content, dict):
            return str(content) if isinstance(content, str | int) and not isinstance(content, bool) else ""
        for name in _NAMES:
            if isinstance(value := content.get(name), str | int) and not isinstance(value, bool):
                return str(value)
    return ""
