"""Check of the three links in this folder, without which nothing of the package can be imported."""

from pathlib import Path

LINKS = ("schemas", "ablations", "cli")
"""Folders at the top level of the repository that are imported as `cnnjepa.schemas`, and so on."""


def refuse_broken_links(package: Path) -> None:
    """Raise ImportError if git has written a link of the `package` folder as a text file, as it does on Windows without
    the right to make links and with `core.symlinks=false`, or if a link is missing."""
    broken = [name for name in LINKS if not (package / name).is_dir()]
    if not broken or not package.is_dir():  # a package inside a zip file has no folders
        return
    named = " ".join(f"cnnjepa/{name}" for name in broken)
    raise ImportError(
        f"{', '.join(str(package / name) for name in broken)}: not a folder. In the repository it is a symbolic link, "
        "and git wrote it as a text file or left it out. In the checkout run `git config core.symlinks true` and "
        f"`git checkout -- {named}` (on Windows turn on the developer mode first, which allows links), then install "
        "again. A wheel that was built on another system needs no links."
    )
