"""Import optional packages at the place of use; the error for a missing one names the command that installs it."""

from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType

from cnnjepa.commands import command
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
        told = install_command(extra, package)
        raise ConfigError(f"{asked_by} needs {package}, which is not installed: {told}") from None


def install_command(extra: str, package: str) -> str:
    """Return the shell command that installs `package` with its extra. This project's own name is on no package index:
    a checkout is named by its folder; elsewhere the requirements are those that the installed project declares."""
    checkout = Path(__file__).resolve().parents[1]
    if (checkout / "pyproject.toml").is_file() and (checkout / "schemas").is_dir():
        return command("pip", "install", "-e", f"{checkout}[{extra}]")
    try:
        declared = metadata.requires("cnnjepa") or []
    except metadata.PackageNotFoundError:  # a copy of the folder, which pip knows nothing of
        declared = []
    condition = f'extra == "{extra}"'
    found = [line.partition(";")[0].strip() for line in declared if condition in line.replace("'", '"')]
    return command("pip", "install", *(found or [package]))


def absent(error: ImportError) -> str | None:
    """What to tell of a package that comes with this one and is gone, with the command that installs it; None for an
    import that fails for another reason (a part of ours, a broken package)."""
    package = (error.name or "").split(".")[0]
    if not isinstance(error, ModuleNotFoundError) or package in ("", "cnnjepa"):
        return None
    return f"this needs {package}, which is not installed: pip install '{_INSTALLED_AS.get(package, package)}'"
