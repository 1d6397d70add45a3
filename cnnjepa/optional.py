"""Packages that only some parts need: imported where they are used, missed with the command that installs them."""

from importlib import import_module
from types import ModuleType

from cnnjepa.schemas import ConfigError

# What pip calls a package where that is not what Python imports.
_INSTALLED_AS = {"ray": "ray[tune]", "yaml": "pyyaml"}


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


def absent(error: ImportError) -> str | None:
    """What to tell of a package that comes with this one and is gone, with the command that installs it; None for an
    import that fails for another reason (a part of ours, a broken package)."""
    package = (error.name or "").split(".")[0]
    if not isinstance(error, ModuleNotFoundError) or package in ("", "cnnjepa"):
        return None
    return f"this needs {package}, which is not installed: pip install '{_INSTALLED_AS.get(package, package)}'"
