"""The source files on which a class from outside the repository depends, and their digest.

The digest covers the file that defines the class and every file that it imports, directly or through other such files,
from the same folder or package. Imports are read from the text, also those inside functions. Installed packages and
files that are imported by a computed name are not covered.
"""

import ast
import hashlib
import site
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_OWN = "cnnjepa"  # this program; its version is part of the result


@cache
def fingerprint(module: str, file: str) -> str:
    """Return the SHA-256 (64 hex digits) of a module's source, as it was at the first call, when it was imported: that
    of its file, or, if it imports others from its folder or package, that of all their names and digests."""
    found = source_files(module, file)
    if len(found) == 1:
        return _sha256(Path(file))
    lines = "".join(f"{name} {_sha256(path)}\n" for name, path in sorted(found.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def module_fingerprint(module: str) -> str | None:
    """Return the fingerprint of an imported module; None if it is not imported or has no file."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return fingerprint(module, file) if file else None


def source_files(module: str, file: str) -> dict[str, Path]:
    """Return the module and every module that it imports from its folder or package: full name → file."""
    path = Path(file)
    root = _root(module, path)
    top = module.partition(".")[0]
    alone = _is_installed(root)  # next to an installed package lie other people's
    found: dict[str, Path] = {}
    waiting = [(module, path), *(_packages_above(module, root))]
    while waiting:
        name, path = waiting.pop()
        if name in found:
            continue
        found[name] = path
        for imported in _imports(name, path):
            first = imported.partition(".")[0]
            if first == _OWN or (alone and first != top):
                continue
            place = _file_of(imported, root)
            if place is not None and not _is_another(imported, place):
                waiting += [(imported, place), *_packages_above(imported, root)]
    return found


def _root(module: str, path: Path) -> Path:
    """Return the folder in which the top of a module's name lies."""
    levels = module.count(".") + (path.name == "__init__.py")
    return path.parents[levels]


def _is_installed(folder: Path) -> bool:
    """Return whether Python installs packages in a folder, or has its own modules there."""
    places = {*sysconfig.get_paths().values(), *site.getsitepackages(), site.getusersitepackages()}
    return folder.name in ("site-packages", "dist-packages") or str(folder) in places


def _packages_above(module: str, root: Path) -> list[tuple[str, Path]]:
    """Return the packages that importing a module also imports."""
    parts = module.split(".")
    names = [".".join(parts[:count]) for count in range(1, len(parts))]
    files = [(name, root.joinpath(*name.split("."), "__init__.py")) for name in names]
    return [(name, file) for name, file in files if file.is_file()]


def _file_of(module: str, root: Path) -> Path | None:
    stem = root.joinpath(*module.split("."))
    return next((file for file in (stem / "__init__.py", stem.with_suffix(".py")) if file.is_file()), None)


def _is_another(module: str, place: Path) -> bool:
    """Return whether the module of this name that is imported is not the file at `place`."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and Path(file).resolve() != place.resolve()


def _imports(module: str, path: Path) -> Iterator[str]:
    """Yield the full names that a file imports. `from a import b` gives both `a` and `a.b`, which may be a module."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # a compiled module, or one that Python cannot import
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            start = ".".join(part for part in (*base, node.module or "") if part)
            if start:
                yield start
            yield from (f"{start}.{alias.name}" if start else alias.name for alias in node.names)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
