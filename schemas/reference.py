"""The configuration reference, generated from the models."""

import typing
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from cnnjepa.schemas.config import PretrainConfig
from cnnjepa.schemas.evaluation import TASKS
from cnnjepa.schemas.extension import ExtensibleSection
from cnnjepa.schemas.fields import arms, discriminator, listed, tag_values


def config_reference() -> str:
    """Return the reference as Markdown: every section, and every field with type, default and documentation."""
    lines = [
        "# Configuration reference",
        "",
        "This page lists every field of a configuration with its type, default and meaning. `make docs` writes it from",
        "the schemas. Set a field with `--set`, by any unambiguous ending of its path, or in a YAML file of the same",
        "structure.",
        "",
        "Values in files and on the command line follow the core schema of YAML 1.2: `1e-4` is a number, `010` is",
        "ten, `true` and `false` are the only booleans, and `no`, `on` and `1:30` are text. Numbers, booleans and text",
        "are not converted to each other: in a file, write `'2012'` for a folder of that name (on the command line,",
        "`--set train_split=2012` is enough). A key may occur once. Where a list of any length is expected, a single",
        "value is accepted. `~` at the start of a path is the home directory. `cnnjepa config schema --json` prints",
        "the JSON Schema of config files.",
    ]
    for name, info in PretrainConfig.model_fields.items():
        lines += _sections(name, arms(info.annotation))
    lines += [
        "",
        "# Tasks of `cnnjepa evaluate`",
        "",
        "These sections are not part of a run's config. Set a field with `--set TASK.FIELD=VALUE`, for example",
        "`--set lowshot.draws=20`.",
    ]
    for name, section in TASKS.items():
        lines += _sections(name, [section])
    return "\n".join(lines) + "\n"


def _sections(path: str, models: list[type[BaseModel]], several: bool = False) -> list[str]:
    """Return the sections at `path`, each with its selecting field if there can be `several`."""
    lines: list[str] = []
    for model in models:
        tag = discriminator(model) if several or len(models) > 1 else None
        suffix = f", {tag}: {', '.join(tag_values(model))}" if tag else ""
        lines += ["", f"## `{path}`{suffix}", "", (model.__doc__ or "").strip(), ""]
        inner: list[str] = []
        for name, info in model.model_fields.items():
            nested = arms(info.annotation)
            if nested:
                inner += _sections(f"{path}.{name}", nested)
                continue
            default = info.get_default(call_default_factory=True)
            shown = "required" if default is PydanticUndefined else f"`{_plain(default)}`"
            lines.append(
                f"- **`{name}`** ({_type(info.annotation)}, default {shown}): "
                f"{' '.join((info.description or '').split())}"
            )
            inner += _sections(f"{path}.{name}", listed(info.annotation), several=True)
        lines += inner
    return lines


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_plain(v) for v in value) + "]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _type(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _type(get_args(annotation)[0])
    if origin is Literal:
        return " | ".join(str(value) for value in get_args(annotation))
    if origin is tuple:
        parts = [a for a in get_args(annotation) if a is not Ellipsis]
        return f"list of {_type(parts[0])}"
    if origin is typing.Union or (origin is not None and origin.__name__ == "UnionType"):
        return " | ".join(_type(part) for part in get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, ExtensibleSection):
        return f"{annotation.EXTENDS}s"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping"
    names = {"NoneType": "null", "str": "text", "int": "whole number", "float": "number", "bool": "true | false"}
    return names.get(getattr(annotation, "__name__", ""), getattr(annotation, "__name__", str(annotation)).lower())
