"""The search that a file and flags describe. This module does not import torch, so that an invalid search is refused at
once."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cnnjepa.ablations.search.notes import NOTED, without_notes
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.load import explain
from cnnjepa.schemas.overrides import full_path, full_paths, parse_overrides, replaced
from cnnjepa.schemas.space import SearchSpace
from cnnjepa.schemas.yaml_text import read_yaml_file


def requested_space(file: Path | None, ranges: list[str], sets: list[str], flags: dict[str, Any]) -> SearchSpace:
    """Return the search that a file and flags describe; flags override the file. Raises ConfigError."""
    tree: dict[str, Any] = {}
    if file is not None:
        tree = read_yaml_file(file, "search file")
        if not isinstance(tree, dict):
            raise ConfigError(f"{file} must hold fields (preset:, space:, objective:), see docs/studies.md")
        if tree.keys() >= NOTED:  # a search's own record, used as input again
            tree = without_notes(tree)
        tree.setdefault("name", file.stem)
        for name, what in (("space", "range"), ("set", "value")):
            if not isinstance(tree.get(name), dict | None):
                raise ConfigError(f"search file {file}: {name} is {tree[name]!r}; write a mapping, config path: {what}")
    asked: dict[str, Any] = dict(tree.get("space") or {})
    # Named arms have a name, and config paths of their own.
    fields = [key for key, span in asked.items() if not isinstance(span, dict)]
    spelt = dict(zip(full_paths(dict.fromkeys(fields), "--space"), fields, strict=True))
    given: set[str] = set()
    for text in ranges:
        path, equals, span = text.partition("=")
        if not equals:
            raise ConfigError(f"--space {text}: write PATH=RANGE, for example --space 'optimizer.lr=log(1e-4, 1e-1)'")
        full = full_path(path.strip(), "--space")
        if full in given:
            raise ConfigError(f"--space {path.strip()}: given twice; give every setting once")
        given.add(full)
        asked[spelt.get(full, path.strip())] = span.strip()
    if not asked:
        raise ConfigError("nothing to search: give SPACE.yaml or --space 'optimizer.lr=log(1e-4, 1e-1)'")
    changes = replaced(tree.get("set") or {}, dict(parse_overrides(sets)), "set:")
    tree = {**tree, **flags, "space": asked, "set": changes}
    tree.setdefault("name", f"search-{tree.get('preset', 'demo')}")
    try:
        return SearchSpace.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(explain(error, SearchSpace, tree)) from None
