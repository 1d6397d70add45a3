"""Classes from outside the repository, named `package.module:Class` in a config.

Methods, encoders, masking strategies, data sources, augmentations and probe metrics use the same mechanism. The class
may name a section as its `Config`, whose fields are then config fields like any other. The class, its source and the
source of what it imports from its own folder or package are part of the run's name; for a metric, of the probe hash. A
module is imported only when a config names it.
"""

import copyreg
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Annotated, Any, ClassVar, Literal, Union

from pydantic import BaseModel, Discriminator, SerializeAsAny, WrapValidator, create_model

from cnnjepa.schemas.base import Section
from cnnjepa.schemas.errors import ConfigError
from cnnjepa.schemas.source_files import fingerprint

Kind = Literal["method", "encoder", "masking", "data", "augmentation", "metric", "task"]

# The field that selects one of the sections of a kind.
TAGS: dict[Kind, str] = {
    "method": "name", "encoder": "arch", "masking": "strategy", "data": "source", "augmentation": "name",
    "metric": "name", "task": "name",
}  # fmt: skip

NAMED = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")


class ExtensibleSection(Section):
    """A section that a user may replace by their own."""

    EXTENDS: ClassVar[Kind]
    """The kind of extension that can replace this section."""

    @classmethod
    def fields_of(cls, implementation: Any) -> dict[str, Any]:
        """Return the fields (name → annotation and default) whose defaults come from a user's class."""
        return {}


BASES: dict[Kind, type[ExtensibleSection]] = {}
"""Base class of the Config of an extension, by kind. Each is set where it is defined."""


@dataclass(frozen=True)
class Extension:
    """A class from outside the repository, and the config section that it uses."""

    named: str
    """`package.module:Class`."""
    implementation: Any
    """The class itself."""
    section: type[ExtensibleSection]
    """The `Config` of the class, with the field that names the class."""
    fingerprint: str
    """SHA-256 of its source (`cnnjepa.schemas.source_files`)."""


_met: dict[tuple[Kind, str], Extension] = {}


def is_named(value: Any) -> bool:
    """Return whether a value has the form `package.module:Class`."""
    return isinstance(value, str) and NAMED.match(value) is not None


def extension(kind: Kind, named: str) -> Extension:
    """Return the extension with this name, imported once. Raises ConfigError if it cannot be imported, or if its Config
    is not a section of this kind."""
    if (kind, named) not in _met:
        implementation, digest = import_class(named, kind)
        base = BASES[kind]
        config = getattr(implementation, "Config", base)
        if not (isinstance(config, type) and issubclass(config, base)):
            raise ConfigError(
                f"{kind} {named}: its Config must be a class derived from {base.__name__}; got {config!r}"
            )
        section = _section(kind, named, implementation, config)
        _met[kind, named] = Extension(named, implementation, section, digest)
    return _met[kind, named]


def extension_of(section: Any) -> Extension | None:
    """Return the extension to which a section of a config belongs; None for a built-in section."""
    if not isinstance(section, ExtensibleSection):
        return None
    found = _met.get((section.EXTENDS, getattr(section, TAGS[section.EXTENDS])))
    return found if found and type(section) is found.section else None


def met(kind: Kind) -> list[type[ExtensibleSection]]:
    """Return the sections of this kind's extensions that configs have named so far."""
    return [found.section for (other, _), found in _met.items() if other == kind]


def validated_as(kind: Kind, value: Any, ours: Any) -> Any:
    """Return the section of an extension if `value` names one, else the result of `ours`."""
    if extension_of(value):
        return value
    named = value.get(TAGS[kind]) if isinstance(value, dict) else None
    return extension(kind, str(named)).section.model_validate(value) if is_named(named) else ours(value)


def extensible(kind: Kind, sections: Iterable[type[ExtensibleSection]]) -> Any:
    """Return the annotation of a field that holds one of the built-in `sections`, selected by the kind's tag, or the
    section of an extension."""
    return Annotated[
        Union[tuple(sections)],  # noqa: UP007 - made from a registry
        Discriminator(TAGS[kind]),
        WrapValidator(partial(validated_as, kind)),
        SerializeAsAny(),  # type: ignore[type-arg]
    ]


def extensions_in(section: BaseModel) -> Iterator[Extension]:
    """Yield every extension that a config or a section uses."""
    if found := extension_of(section):
        yield found
    for name in type(section).model_fields:
        if isinstance(inner := getattr(section, name), BaseModel):
            yield from extensions_in(inner)


def import_class(named: str, kind: str) -> tuple[Any, str]:
    """Import the class `package.module:Class`, which may also be in the working directory. Returns it together with the
    fingerprint of its source. Raises ConfigError if there is no such class."""
    module, _, name = named.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(import_module(module), name)
    except ModuleNotFoundError as missing:
        where = f"; looked in {os.getcwd()} and in the installed packages" if missing.name == module else ""
        raise ConfigError(f"{kind} {named}: {missing}{where}") from None
    except AttributeError as error:
        raise ConfigError(f"{kind} {named}: {error}") from None
    except (Exception, SystemExit) as error:  # a user's module may raise anything while it is imported
        raise ConfigError(f"{kind} {named}: importing {module} failed: {type(error).__name__}: {error}") from None
    if not isinstance(found, type):
        raise ConfigError(f"{kind} {named} is a {type(found).__name__}; it must be a class")
    file = getattr(sys.modules[found.__module__], "__file__", None)
    if file is None:
        raise ConfigError(f"{kind} {named} has no source file; put the class in a file, so that runs can name it")
    return found, fingerprint(found.__module__, file)


def _section(kind: Kind, named: str, implementation: Any, config: type[ExtensibleSection]) -> type[ExtensibleSection]:
    """Return `config` with the field that names the extension. Its instances can be pickled."""
    fields: dict[str, Any] = {**config.fields_of(implementation), TAGS[kind]: (Literal[named], named)}
    made: type[ExtensibleSection] = create_model(
        named.partition(":")[2] + "Config", __base__=config, __module__=config.__module__, __doc__=config.__doc__,
        **fields,
    )  # fmt: skip

    def reduced(section: Any) -> Any:
        return _restored, (kind, named, section.model_dump())

    copyreg.pickle(made, reduced)
    return made


def _restored(kind: Kind, named: str, values: dict[str, Any]) -> ExtensibleSection:
    return extension(kind, named).section.model_validate(values)
