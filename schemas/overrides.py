"""`--set key=value`: a key that may be shortened to any unambiguous ending, merged into a nested dict."""

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from cnnjepa.schemas.base import leaf_types, takes_a_list
from cnnjepa.schemas.config import PretrainConfig
from cnnjepa.schemas.errors import ConfigError
from cnnjepa.schemas.extension import TAGS, extension, is_named
from cnnjepa.schemas.fields import arm_of, arms, config_fields, discriminator, listed, nearest
from cnnjepa.schemas.metric import import_metrics, with_metric_fields
from cnnjepa.schemas.yaml_text import read_word

Tree = dict[str, Any]


def full_path(key: str, option: str = "--set") -> str:
    """Return the only config path that ends in `key`. Raises ConfigError, which names the option that gave the key, if
    no path or several paths do."""
    paths = sorted({field.path for field in config_fields()})
    if key in paths:
        return key
    matches = [path for path in paths if path.endswith(f".{key}")]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ConfigError(f"{option} {key}: ambiguous; it could be {', '.join(matches)}. Write more of the path.")
    endings = {".".join(path.split(".")[-n:]) for path in paths for n in range(1, path.count(".") + 2)}
    raise ConfigError(
        f"{option} {key}: there is no such config field{nearest(key, endings)}. `cnnjepa config schema` lists them all."
    )


def parse_override(text: str) -> tuple[str, Any]:
    """Parse `predictor.depth=2` → (full path, 2). The value is read as YAML; for a text field it is taken literally (a
    folder named 2012). Raises ConfigError."""
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--set {text}: write key=value, for example --set predictor.depth=2")
    path, value = full_path(key.strip()), value.strip()
    if value not in ("", "~", "null") and value[:1] not in ("'", '"') and _is_text(path):
        return path, value
    return path, read_word(value, f"--set {key.strip()}")


def parse_overrides(texts: Iterable[str]) -> list[tuple[str, Any]]:
    """Apply `parse_override` to each text. Fields of an extension may be set before the field that names it."""
    texts = list(texts)
    _meet((key.strip(), value.strip()) for key, _, value in (text.partition("=") for text in texts))
    return [parse_override(text) for text in texts]


def _meet(assignments: Iterable[tuple[str, Any]]) -> None:
    """Import the extensions that these values name, so that their fields are known. Raises ConfigError for one that
    cannot be imported; keys that do not exist are refused later."""
    for key, value in assignments:
        for kind, tag in TAGS.items():
            if is_named(value) and f".{_path_or_nothing(key)}".endswith(f".{kind}.{tag}"):
                extension(kind, value)
        if _path_or_nothing(key) == "probe.metrics":
            import_metrics(value)


def _path_or_nothing(key: str) -> str:
    with contextlib.suppress(ConfigError):
        return full_path(key)
    return ""


def full_paths(changes: Mapping[str, Any], option: str) -> dict[str, Any]:
    """Expand keys that are unambiguous endings to full config paths; values are unchanged. Raises ConfigError, which
    names the option that gave the keys, for a path that does not exist and for one field under two spellings."""
    spelt: dict[str, str] = {}
    _meet(changes.items())
    for key in changes:
        path = full_path(key, option)
        if path in spelt:
            raise ConfigError(f"{option} {spelt[path]} and {key} are one field, {path}; give it once")
        spelt[path] = key
    return {path: changes[key] for path, key in spelt.items()}


def replaced(written: Mapping[str, Any], over: Mapping[str, Any], option: str) -> dict[str, Any]:
    """Return `written`, whose keys may be endings of paths, with the values of `over`, whose keys are full paths. Keys
    that are not replaced keep their spelling. Raises ConfigError like `full_paths`."""
    paths = {key: path for path, key in zip(full_paths(written, option), written, strict=True)}
    return {key: value for key, value in written.items() if paths[key] not in over} | dict(over)


def _is_text(path: str) -> bool:
    """Return whether a config field accepts a single text, in every section that has it."""
    annotations: list[Any] = [field.info.annotation for field in config_fields() if field.path == path]
    return all(leaf_types(a) <= {str, Path, Literal} and not takes_a_list(a) for a in annotations)


def selectors_first(assignments: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Sort assignments so that fields that select a variant come first, and their order does not matter."""
    selectors = (".strategy", ".source", ".name", ".arch", ".metrics")
    return sorted(assignments, key=lambda item: not item[0].endswith(selectors))


def merge(base: Tree, over: Tree) -> Tree:
    """Merge `over` into `base`, section by section. If `over` selects another variant of a union (another `strategy`,
    `source` or `name`), keys of `base` that the new variant lacks, or that have another meaning there, are dropped."""
    return _merge(base, over, [PretrainConfig])


def _merge(base: Tree, over: Tree, models: list[type[BaseModel]]) -> Tree:
    model = arm_of({**base, **{k: v for k, v in over.items() if not isinstance(v, dict)}}, models)
    merged = dict(base)
    tag = discriminator(model) if model and len(models) > 1 else None
    if model and tag and tag in over and over[tag] != base.get(tag, over[tag]):
        left = arm_of(base, models)
        # Fields have the same meaning in a section that is derived from the previous one.
        changed = () if left and issubclass(model, left) else (*_own(model), *_own(left))
        own = {*changed, *getattr(left, "LEFT_BEHIND", ())}
        merged = {key: value for key, value in base.items() if key in model.model_fields and key not in own}
    for key, value in over.items():
        info = model.model_fields.get(key) if model else None
        if isinstance(value, dict) and info and listed(info.annotation) and "name" not in value:
            merged[key] = with_metric_fields(merged.get(key, ()), value)
        elif isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value, list(arms(info.annotation)) if info else [])
        else:
            merged[key] = value
    return merged


def _own(model: type[BaseModel] | None) -> tuple[str, ...]:
    """Return the fields of a variant that have another meaning in the others and are therefore never carried over."""
    return getattr(model, "OWN_FIELDS", ())


def nested(path: str, value: Any) -> Tree:
    """Convert `a.b.c`, 1 → {a: {b: {c: 1}}}."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return dict(value)


def flat(tree: Tree, prefix: str = "") -> Tree:
    """Convert {a: {b: 1}} → {"a.b": 1}."""
    leaves: Tree = {}
    for name, value in tree.items():
        leaves |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return leaves


def differences(one: Tree, other: Tree, absent: str = "(none)") -> list[tuple[str, Any, Any]]:
    """Return (path, value in `one`, value in `other`) for every path of two flat trees at which they differ. A path
    that a tree does not have is shown as `absent`; it equals one whose value is None."""
    return [
        (path, one.get(path, absent), other.get(path, absent))
        for path in dict.fromkeys([*one, *other])
        if one.get(path) != other.get(path)
    ]
