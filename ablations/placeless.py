"""Removal of places from text that is passed on: absolute paths are replaced by their last parts, and host names are
removed."""

import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

# A quoted path may contain spaces. An unquoted path ends at the first space, begins a word (`images/s` and `runs/x` are
# not paths) and is not part of a web address.
_QUOTED = re.compile(r"""(?P<quote>['"])(?P<path>(?:file://)?(?:~[\w.-]*)?/[^'"\n]*|[A-Za-z]:\\[^'"\n]*)(?P=quote)""")
_PLAIN = re.compile(
    r"""(?<![\w.~/<])(?:(?:file://)?(?:~[\w.-]*)?(?:/[^\s/'"<>|:;,()\[\]{}]+)+/?|[A-Za-z]:\\[^\s'"<>|:;,()\[\]{}]+)"""
)
_HOST = "(host)"
_FOLDER = "hf:"  # before a folder in encoder.init


class Placeless:
    """Replacer of absolute paths in settings and texts. Different paths among the settings get different names."""

    def __init__(self, settings: Any, root: Path, hosts: Iterable[str] = ()) -> None:
        """Collect the paths to replace. `settings`: plain values in which paths may occur. `root`: paths below it keep
        their part below it. `hosts`: host names."""
        every = {text.removeprefix(_FOLDER) for text in _texts(settings)}
        places = sorted(text for text in every if _is_place(text))
        self._names: dict[str, str] = {}
        for place in places:
            taken = (every - set(places)) | set(self._names.values())
            self._names[place] = _ending(place, places, taken)
        below = [str(root.absolute()), str(root.resolve()), os.getcwd(), str(Path.home()), sys.prefix]
        self._below = sorted({place for place in below if len(place) > 1}, key=len, reverse=True)
        self._hosts = sorted({host for host in hosts if len(host) > 2 and host != "localhost"}, key=len, reverse=True)

    def value(self, value: Any) -> Any:
        """Return a plain value in which every text that is an absolute path is replaced by its name."""
        if isinstance(value, dict):
            return {self.value(key): self.value(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(one) for one in value]
        if isinstance(value, str) and value.startswith(_FOLDER):
            return f"{_FOLDER}{self.value(value.removeprefix(_FOLDER))}"
        if not isinstance(value, str) or not _is_place(value):
            return value
        return self._names.get(value) or _last(value)

    def text(self, text: str) -> str:
        """Return a message in which absolute paths are replaced: those of the settings by their names, those below the
        root by their part below it, others by their last part."""
        for place, name in sorted(self._names.items(), key=lambda pair: -len(pair[0])):
            text = name.join(re.split(rf"(?<![\w.~/]){re.escape(place)}(?![\w.-])", text))
        for place in self._below:
            text = text.replace(f"{place}{os.sep}", "")
        text = _QUOTED.sub(lambda found: f"{found['quote']}{_last(found['path'])}{found['quote']}", text)
        return _PLAIN.sub(lambda found: _last(found[0]), text)

    def texts(self, tree: Any) -> Any:
        """Return a plain value in which every text is treated as a message. Keys of mappings stay as they are."""
        if isinstance(tree, dict):
            return {key: self.texts(value) for key, value in tree.items()}
        if isinstance(tree, list | tuple):
            return [self.texts(value) for value in tree]
        if not isinstance(tree, str):
            return tree
        alone = _is_place(tree) and "\n" not in tree and ": " not in tree  # only a path, possibly with spaces
        return self.value(tree) if alone else self.text(tree)

    def said(self, text: str) -> str:
        """Return a run's printed text without paths, as `text` does, and without host names."""
        for host in self._hosts:
            text = re.sub(rf"(?<![\w-]){re.escape(host)}(?![\w-])", _HOST, text)
        return self.text(text)


def _texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _texts(key)
            yield from _texts(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _texts(value)
    elif isinstance(tree, str):
        yield tree


def _is_place(text: str) -> bool:
    """Return whether a setting's text is an absolute path or one in a home folder."""
    if text.startswith("file://"):
        return True
    home = text.startswith("~") and (len(text) == 1 or "/" in text)
    return home or PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()


def _parts(place: str) -> list[str]:
    """Return the path's parts without its root, drive or home folder."""
    pure = PureWindowsPath(place) if re.match(r"[A-Za-z]:\\|\\\\", place) else PurePosixPath(place)
    return [part for part in pure.parts if part not in (pure.anchor, "file:") and not part.startswith("~")]


def _last(place: str) -> str:
    return (_parts(place) or ["…"])[-1]


def _ending(place: str, places: list[str], taken: set[str]) -> str:
    """Return the shortest ending that no other path has and that is not `taken`; a numbered name if there is none."""
    parts, others = _parts(place), [_parts(other) for other in places if other != place]
    for n in range(1, len(parts) + 1):
        name = "/".join(parts[-n:])
        if name not in taken and all(other[-n:] != parts[-n:] for other in others):
            return name
    number = 2
    while f"{_last(place)} ({number})" in taken:
        number += 1
    return f"{_last(place)} ({number})"
