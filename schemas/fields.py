"""The valid config paths, derived from the models."""

import difflib
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cnnjepa.schemas.config import PretrainConfig
from cnnjepa.schemas.extension import TAGS, ExtensibleSection, Kind, extension, is_named, met


@dataclass(frozen=True)
class ConfigField:
    """One leaf of the config: its full path, its owner (possibly one variant of a union) and its declaration."""

    path: str
    owner: type[BaseModel]
    info: FieldInfo


def arms(annotation: Any) -> list[type[BaseModel]]:
    """Return the models that an annotation admits: one for a plain section, several for a discriminated union,
    including those of extensions that a config has named."""
    found = _arms(annotation)
    return found + list(met(kind)) if len(found) > 1 and (kind := _extended(found)) else found


def _extended(models: list[type[BaseModel]]) -> Kind | None:
    """Return the kind of extension that can replace these models; None if there is none."""
    return models[0].EXTENDS if models and issubclass(models[0], ExtensibleSection) else None


def _arms(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) is typing.Annotated:
        return _arms(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [model for part in get_args(annotation) for model in _arms(part)]
    return []


def listed(annotation: Any) -> list[type[BaseModel]]:
    """Return the models of which a field is a list of any length if they have kinds (metrics), including those of
    extensions that a config has named; none for any other field."""
    args = get_args(annotation)
    found = _arms(args[0]) if get_origin(annotation) is tuple and Ellipsis in args else []
    return found + list(met(kind)) if (kind := _extended(found)) else []


def config_fields(model: type[BaseModel] = PretrainConfig, prefix: str = "") -> Iterator[ConfigField]:
    """Yield every leaf below `model`. The variants of a union follow one another."""
    for name, info in model.model_fields.items():
        sections = arms(info.annotation)
        if not sections:
            yield ConfigField(prefix + name, model, info)
        for section in sections:
            yield from config_fields(section, f"{prefix}{name}.")
        for section in listed(info.annotation):  # the list is a leaf; the fields of its items may also be set
            fields = config_fields(section, f"{prefix}{name}.")
            yield from (field for field in fields if not field.path.endswith(".name"))


def discriminator(model: type[BaseModel]) -> str | None:
    """Return the field that distinguishes the variants of a union, for a model that is one of them; `arch` for
    encoders, where a variant has several values."""
    for name in ("strategy", "source", "name"):
        info = model.model_fields.get(name)
        if info is not None and len(get_args(info.annotation)) == 1 and isinstance(info.default, str):
            return name
    return "arch" if "arch" in model.model_fields else None


def tag_values(model: type[BaseModel]) -> tuple[str, ...]:
    """Return the values of the discriminator that select this model."""
    tag = discriminator(model)
    return () if tag is None else get_args(model.model_fields[tag].annotation)


def arm_of(section: dict[str, Any], models: list[type[BaseModel]]) -> type[BaseModel] | None:
    """Return the model among `models` that `section` selects; None if it names none of them."""
    if len(models) == 1:
        return models[0]
    for model in models:
        tag = discriminator(model)
        if tag and section.get(tag) in tag_values(model):
            return model
    kind = _extended(models)
    named = section.get(TAGS[kind]) if kind else None
    return extension(kind, named).section if kind and named and is_named(named) else None


def nearest(given: str, names: typing.Iterable[str]) -> str:
    """Return `; nearest is 'x'` for an error message, or an empty text if no valid name is close."""
    match = difflib.get_close_matches(given, list(names), n=1, cutoff=0.5)
    return f"; nearest is {match[0]!r}" if match else ""
