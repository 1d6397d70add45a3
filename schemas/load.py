"""From a preset, a YAML file and flags to one validated config, with errors a person can act on."""

import copy
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from cnnjepa.schemas.config import PretrainConfig
from cnnjepa.schemas.data import SyntheticData
from cnnjepa.schemas.errors import ConfigError
from cnnjepa.schemas.extension import TAGS
from cnnjepa.schemas.fields import arm_of, arms, discriminator, nearest, tag_values
from cnnjepa.schemas.overrides import Tree, merge, nested, parse_overrides
from cnnjepa.schemas.yaml_text import read_yaml, read_yaml_file

_PRESETS = files("cnnjepa.schemas") / "presets"
_HDF5 = (".h5", ".hdf5")


@cache
def preset_names() -> tuple[str, ...]:
    """Names of the preset files."""
    return tuple(
        sorted(entry.name.removesuffix(".yaml") for entry in _PRESETS.iterdir() if entry.name.endswith(".yaml"))
    )


def preset_text(name: str) -> str:
    """The preset's file as it is, head comment included. Raises ConfigError for an unknown name."""
    if name not in preset_names():
        raise ConfigError(
            f"preset {name!r} does not exist; legal are {', '.join(preset_names())}{nearest(name, preset_names())}"
        )
    return (_PRESETS / f"{name}.yaml").read_text(encoding="utf-8")


def _preset_tree(name: str) -> Tree:
    return _extended(copy.deepcopy(_parsed_preset(name)), f"preset {name}")


@cache
def _parsed_preset(name: str) -> Any:
    return read_yaml(preset_text(name), f"preset {name}")


def _file_tree(path: Path) -> Tree:
    return _extended(read_yaml_file(path, "config file"), f"config file {path}")


def _extended(tree: Any, origin: str) -> Tree:
    """The sections of a file, laid over the preset that it extends."""
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{origin} must hold sections (method:, encoder:, data:, …), not a {type(tree).__name__}")
    base = tree.pop("extends", None)
    return tree if base is None else merge(_with_tags(_preset_tree(str(base))), tree)


def read_config(path: Path) -> PretrainConfig:
    """The config in a YAML file (a run's `config.yaml`, say)."""
    return _validate(_file_tree(path))


def load_config(
    preset: str | None = None,
    file: Path | None = None,
    overrides: list[str] | tuple[str, ...] = (),
    data: Path | None = None,
    changes: Mapping[str, Any] | None = None,
) -> PretrainConfig:
    """A preset, then a YAML file, then `--data`, then `--set` flags, each laid over the one before; then `changes`,
    full config paths with their values (an arm of a study, say). Where `--data` or a file replaces the synthetic source
    of a preset, the preset's image size and numbers of images go with that source.

    Raises ConfigError naming the field, the value, what is legal and the nearest legal name.
    """
    tree: Tree = _preset_tree(preset) if preset else {}
    if file:
        tree = merge(_with_tags(tree), _file_tree(file))
    tree = _with_tags(tree)
    parsed = parse_overrides(overrides)
    if data is not None:
        limits = _own_limits(file) if file else {}
        tree = merge(tree, {"data": {**limits, **_data_at(data, tree, dict(parsed).get("data.source"))}})
    for assignments in (parsed, list((changes or {}).items())):
        # Choices between arms first, so that the order of flags does not matter.
        for path, value in sorted(
            assignments, key=lambda item: not item[0].endswith((".strategy", ".source", ".name", ".arch"))
        ):
            tree = merge(tree, nested(path, value))
    return _validate(tree)


def _own_limits(file: Path) -> Tree:
    """Image size and numbers of images that a file states without naming the source they are meant for. They hold for
    `--data` too; those of the preset that it extends belong to the preset's source."""
    section = (read_yaml_file(file, "config file") or {}).get("data")
    if not isinstance(section, dict) or "source" in section:
        return {}
    return {name: section[name] for name in SyntheticData.LEFT_BEHIND if name in section}


def _data_at(path: Path, tree: Tree, asked: Any) -> Tree:
    """The data section that `--data PATH` means: HDF5 where it lies there, else the source in force if it reads a path,
    else a folder of images."""
    section = tree.get("data")
    in_force = section.get("source") if isinstance(section, dict) else None
    return data_at(path, asked or ("hdf5" if _holds_hdf5(path) else in_force))


def data_at(path: Path, source: Any = None) -> Tree:
    """Source and place of the images at `path`; the source by looking where none, or the synthetic one, is given."""
    if source in (None, "synthetic"):
        source = "hdf5" if _holds_hdf5(path) else "folder"
    if source == "hdf5" and path.suffix in _HDF5:
        return {"source": source, "path": str(path.parent), "train_file": path.name}
    return {"source": source, "path": str(path)}


def _holds_hdf5(path: Path) -> bool:
    """Whether PATH is an HDF5 file or a folder of such; one of images (`train/`, …) may hold such a file too."""
    if path.suffix in _HDF5:
        return True
    if not path.is_dir() or any((path / name).is_dir() for name in ("train", "val")):
        return False
    return any(any(path.glob(f"*{ending}")) for ending in _HDF5)


def with_sections(
    config: PretrainConfig, sections: Tree, overrides: list[str] | tuple[str, ...] = ()
) -> PretrainConfig:
    """`config` with whole sections replaced, then `--set` flags laid over it. Raises ConfigError as `load_config`."""
    tree = {**config.model_dump(mode="json"), **sections}
    for path, value in parse_overrides(overrides):
        tree = merge(tree, nested(path, value))
    return _validate(tree)


def _validate(tree: Tree) -> PretrainConfig:
    try:
        return PretrainConfig.model_validate(_with_tags(tree))
    except ValidationError as error:
        raise ConfigError(explain(error, PretrainConfig, tree)) from None


def _with_tags(tree: Tree) -> Tree:
    """Fills in discriminators left out, from the defaults, so that `masking: {ratio: 0.5}` is understood."""
    return _tagged(json.loads(json.dumps(tree, default=str)), PretrainConfig)


def _tagged(section: Tree, model: type[BaseModel]) -> Tree:
    for name, info in model.model_fields.items():
        inner, options = section.get(name), arms(info.annotation)
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
    """Pydantic's findings as one message: a line a finding, with field, value, what is legal, nearest name."""
    findings = error.errors(include_url=False)
    # A list whose items are wrong is reported again as too short; one line says it.
    wrong = {finding["loc"][:-1] for finding in findings}
    kept = [f for f in findings if not (f["type"] == "too_short" and f["loc"] in wrong)]
    return "\n".join(_line(finding, root, tree) for finding in kept)


def _line(finding: Any, root: type[BaseModel], tree: Tree) -> str:
    location, kind = finding["loc"], finding["type"]
    owner, path = _owner(location, root, tree)
    message = finding["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        legal = list(owner.model_fields)
        tag = discriminator(owner)
        of = f" of {tag} {'/'.join(tag_values(owner))!r}" if tag and tag != "arch" else ""
        return f"{path}: no such field{of}; legal are {', '.join(legal)}{nearest(str(location[-1]), legal)}"
    if kind in ("union_tag_invalid", "literal_error"):
        expected = finding["ctx"].get("expected_tags") or finding["ctx"].get("expected", "")
        given = finding["ctx"].get("tag", finding["input"])
        tag_path = f"{path}.{finding['ctx']['discriminator'].strip(chr(39))}" if kind.startswith("union") else path
        names = expected.replace(" or ", ", ").replace("'", "").split(", ")
        if kind.startswith("union") and path.split(".")[-1] in TAGS:
            names.append("module:Class of your own")
        return f"{tag_path}: {given!r} is not legal; legal are {', '.join(names)}{nearest(str(given), names)}"
    if kind in ("value_error", "wrong_kind"):
        return f"{path}: {message}" if path else message
    return f"{path}: {finding['input']!r} is not legal; {message[0].lower()}{message[1:]}"


def _owner(location: tuple[Any, ...], root: type[BaseModel], tree: Tree) -> tuple[type[BaseModel], str]:
    """The model in which the finding lies, and its path without the union tags that pydantic inserts."""
    model, names, owner = root, [], root
    steps = list(location)
    while steps:
        name = steps.pop(0)
        names.append(str(name))
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
    """The section at a path."""
    for name in names:
        tree = tree[name]
    return tree
