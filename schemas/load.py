"""Loading of a config from a preset, a YAML file and flags, with errors that say what to do."""

import copy
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from cnnjepa.schemas.config import PretrainConfig
from cnnjepa.schemas.data import SyntheticData
from cnnjepa.schemas.errors import ConfigError
from cnnjepa.schemas.extension import TAGS
from cnnjepa.schemas.fields import arm_of, arms, discriminator, listed, nearest, tag_values
from cnnjepa.schemas.metric import import_metrics
from cnnjepa.schemas.overrides import Tree, merge, nested, parse_overrides, selectors_first
from cnnjepa.schemas.preset_files import FOLDER
from cnnjepa.schemas.probe_set import ENTRY_TAGS, ProbeSet
from cnnjepa.schemas.yaml_text import read_yaml, read_yaml_file

_HDF5 = (".h5", ".hdf5")


@cache
def preset_names() -> tuple[str, ...]:
    """Return the names of the preset files."""
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in FOLDER.iterdir() if entry.name.endswith(".yaml")))


def preset_text(name: str) -> str:
    """Return the text of the preset's file, head comment included. Raises ConfigError for an unknown name."""
    if name not in preset_names():
        raise ConfigError(
            f"preset {name!r} does not exist; must be one of {', '.join(preset_names())}{nearest(name, preset_names())}"
        )
    return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


def _preset_tree(name: str) -> Tree:
    return _extended(copy.deepcopy(_parsed_preset(name)), f"preset {name}")


@cache
def _parsed_preset(name: str) -> Any:
    return read_yaml(preset_text(name), f"preset {name}")


def _file_tree(path: Path) -> Tree:
    return _extended(read_yaml_file(path, "config file"), f"config file {path}")


def _extended(tree: Any, origin: str) -> Tree:
    """Return the sections of a file, merged over the preset that it extends."""
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{origin} must hold sections (method:, encoder:, data:, …), not a {type(tree).__name__}")
    base = tree.pop("extends", None)
    return tree if base is None else merge(_with_tags(_preset_tree(str(base))), tree)


def read_config(path: Path) -> PretrainConfig:
    """Read the config in a YAML file (for example a run's `config.yaml`)."""
    return _validate(_file_tree(path))


def load_config(
    preset: str | None = None,
    file: Path | None = None,
    overrides: list[str] | tuple[str, ...] = (),
    data: Path | None = None,
    changes: Mapping[str, Any] | None = None,
) -> PretrainConfig:
    """Load a config from a preset, then a YAML file, then `--data`, then `--set` flags; each is merged over the
    previous one. `changes` come last: full config paths with their values (for example an arm of a study). If `--data`
    or a file replaces the synthetic source of a preset, the preset's image size and numbers of images are dropped with
    that source.

    Raises ConfigError, which names the field, the value, the allowed values and the nearest valid name.
    """
    tree: Tree = _preset_tree(preset) if preset else {}
    if file:
        tree = merge(_with_tags(tree), _file_tree(file))
    tree = _with_tags(tree)
    parsed = parse_overrides(overrides)
    if data is not None:
        refuse_two_places(data, dict(parsed))
        limits = _own_limits(file) if file else {}
        tree = merge(tree, {"data": {**limits, **_data_at(data, tree, dict(parsed).get("data.source"))}})
    for assignments in (parsed, list((changes or {}).items())):
        for path, value in selectors_first(assignments):
            tree = merge(tree, nested(path, value))
    return _validate(tree)


def refuse_two_places(data: Path, overrides: Mapping[str, Any]) -> None:
    """Raise ConfigError if `--set` flags (full path → value) name other images than `--data`: they select the embedded
    ones, or another path."""
    given = [f"--set {path}={overrides[path]}" for path in ("data.source", "data.path") if path in overrides]
    if overrides.get("data.source") == "synthetic" or "data.path" in overrides:
        raise ConfigError(f"--data {data} and {' '.join(given)} name different images; give only one of them")


def _own_limits(file: Path) -> Tree:
    """Return the image size and the numbers of images that a file states without naming their source. They also apply
    to the images of `--data`; the values of the preset that the file extends apply only to the preset's source."""
    section = (read_yaml_file(file, "config file") or {}).get("data")
    if not isinstance(section, dict) or "source" in section:
        return {}
    return {name: section[name] for name in SyntheticData.LEFT_BEHIND if name in section}


def _data_at(path: Path, tree: Tree, asked: Any) -> Tree:
    """Return the data section for `--data PATH`: the source whose files the path holds, else the current source if it
    reads a path, else a folder of images."""
    section = tree.get("data")
    in_force = section.get("source") if isinstance(section, dict) else None
    return data_at(path, asked or _recognised(path) or in_force)


def data_at(path: Path, source: Any = None) -> Tree:
    """Return source and path of the images at `path`. The source is detected if none, or the synthetic one, is
    given."""
    if source in (None, "synthetic"):
        source = _recognised(path) or "folder"
    if source == "hdf5" and path.suffix in _HDF5:
        return {"source": source, "path": str(path.parent), "train_file": path.name}
    return {"source": source, "path": str(path)}


def _recognised(path: Path) -> str | None:
    """Return the source of files that no other source reads."""
    if _holds_hdf5(path):
        return "hdf5"
    return "huggingface" if _holds_arrow_or_parquet(path) else None


def _holds_arrow_or_parquet(path: Path) -> bool:
    """Return whether PATH is what the library `datasets` saved, a Parquet file, or a folder of nothing else. A Parquet
    file next to images is a table of labels."""
    if path.suffix == ".parquet" or (path / "dataset_dict.json").is_file():
        return True
    if (path / "dataset_info.json").is_file() and (path / "state.json").is_file():
        return True
    if not path.is_dir() or (not any(path.glob("*.parquet")) and not any(path.glob("data/*.parquet"))):
        return False
    files = (file for folder in (path, path / "data") if folder.is_dir() for file in folder.iterdir())
    return all(
        file.name == "data" or file.suffix in (".parquet", ".md", ".json") or file.name[0] == "." for file in files
    )


def _holds_hdf5(path: Path) -> bool:
    """Return whether PATH is an HDF5 file or a folder of such files. A folder of images (`train/`, …) may hold such a
    file too."""
    if path.suffix in _HDF5:
        return True
    if not path.is_dir() or any((path / name).is_dir() for name in ("train", "val")):
        return False
    return any(any(path.glob(f"*{ending}")) for ending in _HDF5)


def with_sections(
    config: PretrainConfig, sections: Tree, overrides: list[str] | tuple[str, ...] = ()
) -> PretrainConfig:
    """Return `config` with whole sections replaced, and then with `--set` flags applied. Raises ConfigError like
    `load_config`."""
    tree = {**config.model_dump(mode="json"), **sections}
    for path, value in selectors_first(parse_overrides(overrides)):
        tree = merge(tree, nested(path, value))
    return _validate(tree)


def _validate(tree: Tree) -> PretrainConfig:
    try:
        return PretrainConfig.model_validate(_with_tags(tree))
    except ValidationError as error:
        raise ConfigError(explain(error, PretrainConfig, tree)) from None


def _with_tags(tree: Tree) -> Tree:
    """Fill in missing discriminators from the defaults, so that `masking: {ratio: 0.5}` is understood."""
    return _tagged(json.loads(json.dumps(tree, default=str)), PretrainConfig)


def _tagged(section: Tree, model: type[BaseModel]) -> Tree:
    for name, info in model.model_fields.items():
        inner, options = section.get(name), arms(info.annotation)
        if inner and listed(info.annotation):
            import_metrics(inner)
        if not options or not isinstance(inner, dict):
            continue
        if len(options) > 1:
            tag = discriminator(options[0])
            assert tag is not None
            inner.setdefault(tag, getattr(info.default, tag))
        chosen = arm_of(inner, options)
        if chosen is not None:
            _tagged(inner, chosen)
    return section


def explain(error: ValidationError, root: type[BaseModel], tree: Tree) -> str:
    """Return pydantic's findings as one message, one line per finding, with field, value, allowed values and nearest
    name."""
    findings = error.errors(include_url=False)
    # A list with wrong items is also reported as too short. One line suffices.
    wrong = {finding["loc"][:-1] for finding in findings}
    kept = [f for f in findings if not (f["type"] == "too_short" and f["loc"] in wrong)]
    return "\n".join(_line(finding, root, tree) for finding in kept)


def _line(finding: Any, root: type[BaseModel], tree: Tree) -> str:
    location, kind = finding["loc"], finding["type"]
    owner, path = _owner(location, root, tree)
    message = finding["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        names = list(owner.model_fields)
        tag = discriminator(owner)
        of = f" of {tag} {'/'.join(tag_values(owner))!r}" if tag and tag != "arch" else ""
        return f"{path}: no such field{of}; must be one of {', '.join(names)}{nearest(str(location[-1]), names)}"
    if kind in ("union_tag_invalid", "literal_error"):
        expected = finding["ctx"].get("expected_tags") or finding["ctx"].get("expected", "")
        given = finding["ctx"].get("tag", finding["input"])
        tag_path = f"{path}.{finding['ctx']['discriminator'].strip(chr(39))}" if kind.startswith("union") else path
        names = expected.replace(" or ", ", ").replace("'", "").split(", ")
        if kind.startswith("union") and path.split(".")[-1] in TAGS:
            names.append("module:Class of your own")
        return f"{tag_path}: {given!r} is not valid; must be one of {', '.join(names)}{nearest(str(given), names)}"
    if kind in ("value_error", "wrong_kind"):
        return f"{path}: {message}" if path else message
    reason = message.replace("Input should be", "must be", 1)
    return f"{path}: {finding['input']!r} is not valid; {reason[0].lower()}{reason[1:]}"


def _owner(location: tuple[Any, ...], root: type[BaseModel], tree: Tree) -> tuple[type[BaseModel], str]:
    """Return the model that contains the finding, and its path without the union tags that pydantic inserts."""
    model, names, owner = root, [], root
    steps = list(location)
    while steps:
        name = steps.pop(0)
        names.append(str(name))
        if isinstance(name, int) and steps and steps[0] in ENTRY_TAGS:
            model = ProbeSet if steps.pop(0) == "set" else model
        info = model.model_fields.get(name) if isinstance(name, str) else None
        options = arms(info.annotation) if info else []
        owner = model
        if len(options) > 1 and steps:
            tagged = [m for m in options if steps[0] in tag_values(m)]
            if tagged:  # sections of extensions are validated without a tag
                steps.pop(0)
            model = tagged[0] if tagged else arm_of(_at(tree, names), options) or options[0]
        elif options:
            model = options[0]
    return owner, ".".join(names)


def _at(tree: Tree, names: list[str]) -> Tree:
    """Return the section at a path."""
    for name in names:
        tree = tree[name]
    return tree
