"""Packages that only some parts need: imported where they are used, missed with the command that installs them."""

from importlib import import_module
from types import ModuleType

from cnnjepa.schemas import ConfigError


def needed(module: str, extra: str, asked_by: str) -> ModuleType:
    """The module. Raises ConfigError, naming who asked and what to type, where it is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as missing:
        package = module.split(".")[0]
        if missing.name is None or missing.name.split(".")[0] != package:
            raise
        raise ConfigError(
            f"{asked_by} needs {package}, which is not installed: pip install 'cnnjepa[{extra}]'"
        ) from None
