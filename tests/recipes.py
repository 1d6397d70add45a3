"""The files that the recipes in docs/ show."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def shown(document: str) -> str:
    """The Python file of a recipe."""
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / document).read_text(encoding="utf-8"), re.DOTALL)
    return str(code)


def commands(document: str) -> list[str]:
    """The command lines of a recipe."""
    (block,) = re.findall(r"```bash\n(.*?)```", (DOCS / document).read_text(encoding="utf-8"), re.DOTALL)
    return [line for line in block.splitlines() if line]


def written(document: str, folder: Path, name: str) -> None:
    """A recipe's file as the module `name` in `folder`; tests give each its own, since a module is imported once."""
    (folder / f"{name}.py").write_text(shown(document), encoding="utf-8")
