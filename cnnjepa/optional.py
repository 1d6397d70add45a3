"""Import of optional packages at the place of use. The error for a missing package names the command that installs
it."""

from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType

from cnnjepa.commands import command
from cnnjepa.schemas import ConfigError

# pip's names of packages that differ from the name of the Python module.
_INSTALLED_AS = {"ray": "ray[tune]", "yaml": "pyyaml"}


def needed(module: str, extra: str, asked_by: str) -> ModuleType:
    """Return the module. If it is not installed, raises ConfigError, which names the feature that needs it and the
    command to type."""
    try:
        return import_module(module)
    except ModuleNotFoundError as missing:
        package = module.split(".")[0]
        if missing.name is None or missing.name.split(".")[0] != package:
            raise
        told = install_command(extra, package)
        raise ConfigError(f"{asked_by} needs {package}, which is not installed: {told}") from None


def install_command(extra: str, package: str) -> str:
    """Return the shell command that installs `package` with its extra. This project is on no package index: a checkout
    is named by its folder, otherwise the command lists the requirements that the installed project declares."""
    checkout = Path(__file__).resolve().parents[1]
    if (checkout / "pyproject.toml").is_file() and (checkout / "schemas").is_dir():
        return command("pip", "install", "-e", f"{checkout}[{extra}]")
    try:
        declared = metadata.requires("cnnjepa") or []
    except metadata.PackageNotFoundError:  # a copy of the folder, unknown to pip
        declared = []
    condition = f'extra == "{extra}"'
    found = [line.partition(";")[0].strip() for line in declared if condition in line.replace("'", '"')]
    return command("pip", "install", *(found or [package]))


def absent(error: ImportError) -> str | None:
    """Return the message for a package that belongs to this project's requirements and is missing, with the command
    that installs it; None for an import that failed for another reason (a module of this project, a broken package)."""
    package = (error.name or "").split(".")[0]
    if not isinstance(error, ModuleNotFoundError) or package in ("", "cnnjepa"):
        return None
    return f"this needs {package}, which is not installed: pip install '{_INSTALLED_AS.get(package, package)}'"
