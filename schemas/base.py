"""The base class of every section, and the kinds of values that fields accept."""

import types
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError


class Section(BaseModel):
    """A frozen config section. Unknown keys are refused; the docstring below a field documents it.

    Text is not converted to a number or a boolean, nor a number to text, because YAML distinguishes them. A single
    value becomes a list of one element if the field accepts a list of any length.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _values_are_of_their_fields_kinds(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        values, wrong = dict(given), []
        for name in (name for name in cls.model_fields if name in given):
            annotation: Any = cls.model_fields[name].annotation
            value = given[name]
            for place, reason in _other_kinds(value, leaf_types(annotation), _lengths(annotation)):
                error = PydanticCustomError("wrong_kind", "{reason}", {"reason": reason})
                wrong.append(InitErrorDetails(type=error, loc=(name, *place), input=value))
            if takes_a_list(annotation) and isinstance(value, str | int | float):
                values[name] = (value,)
        if wrong:
            raise ValidationError.from_exception_data(cls.__name__, wrong)
        return values


def _other_kinds(
    value: Any, wanted: frozenset[Any], lengths: tuple[int, ...] = ()
) -> Iterator[tuple[tuple[int, ...], str]]:
    """Yield (index in a list, reason) for every scalar of a kind that the field does not accept. Pydantic checks all
    other values. `lengths` are those of the lists that may stand in place of a scalar."""
    if isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from (((number, *place), reason) for place, reason in _other_kinds(item, wanted))
        return
    wish, shown = "a whole number" if wanted == {int} else "a number", str(value).lower()
    wish += "".join(f", or [{', '.join('…' * length)}]" for length in lengths)
    if isinstance(value, str) and wanted == {bool}:
        yield (), f"{value!r} is text; write true or false"
    elif isinstance(value, str) and wanted <= {int, float}:
        yield (), f"{value!r} is text; write {wish}"
    elif isinstance(value, bool) and wanted <= {int, float}:
        yield (), f"{shown} is not a number; write {wish}"
    elif isinstance(value, bool | int | float) and wanted <= {str, Path}:
        yield (), f"{shown} is not text; write it in quotes: '{shown}'"


@cache
def leaf_types(annotation: Any) -> frozenset[Any]:
    """Return the types of the scalars that an annotation accepts, also inside lists, without None. A choice among texts
    is `Literal`."""
    origin = get_origin(annotation)
    if origin is typing.Literal:
        kinds = frozenset(type(value) for value in get_args(annotation))
        return frozenset({typing.Literal}) if kinds == {str} else kinds
    if origin is typing.Annotated:
        return leaf_types(get_args(annotation)[0])
    if origin in (Union, types.UnionType, tuple, list):
        inner = (part for part in get_args(annotation) if part not in (Ellipsis, type(None)))
        return frozenset().union(*map(leaf_types, inner))
    return frozenset({origin or annotation})


@cache
def _lengths(annotation: Any) -> tuple[int, ...]:
    """Return the lengths of the lists that a field accepts in place of a scalar."""
    if get_origin(annotation) is typing.Annotated:
        return _lengths(get_args(annotation)[0])
    if get_origin(annotation) not in (Union, types.UnionType):
        return ()
    parts = get_args(annotation)
    nested = [length for part in parts for length in _lengths(part)]
    return (*nested, *(len(get_args(part)) for part in parts if get_origin(part) is tuple))


@cache
def takes_a_list(annotation: Any) -> bool:
    """Return whether a field is a list of scalars of any length, and nothing else."""
    args = get_args(annotation)
    if get_origin(annotation) is not tuple or Ellipsis not in args:
        return False
    return leaf_types(args[0]) <= {str, int, float, Path, typing.Literal}
