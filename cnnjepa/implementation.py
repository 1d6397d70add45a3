"""The class or function that implements a section of a config."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from cnnjepa.schemas.extension import ExtensibleSection, extension_of


def implementation_of(section: ExtensibleSection, built_in: Mapping[Any, str]) -> Any:
    """Return the user's class that the section names, or else the built-in implementation of the section's type.
    `built_in` is the registry of the section's kind: config class → `package.module:name`, imported here."""
    own = extension_of(section)
    return own.implementation if own else imported(built_in[type(section)])


def imported(place: str) -> Any:
    """Return the class or function at `package.module:name`."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
