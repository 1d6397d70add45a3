"""The house: one direction of imports, and references that are not stale."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What each room may import of ours.
ALLOWED = {
    "schemas": {"schemas"},
    "cnnjepa": {"schemas", "cnnjepa"},
    "ablations": {"schemas", "cnnjepa", "ablations"},
    "cli": {"schemas", "cnnjepa", "ablations", "cli"},
}
# What the schemas and the top of the command line must not load.
HEAVY = {"torch", "torchvision", "ray", "optuna", "matplotlib", "h5py", "numpy", "tensorboard"}


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def room_of(module: str) -> str | None:
    parts = module.split(".")
    if parts[0] != "cnnjepa":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in ALLOWED else "cnnjepa"


@pytest.mark.parametrize("room", ALLOWED)
def test_imports_go_one_way(room: str) -> None:
    for path in (ROOT / room).rglob("*.py"):
        if path.is_symlink() or any(parent.is_symlink() for parent in path.parents):
            continue
        against = {m for m in imports(path) if room_of(m) not in ALLOWED[room] | {None}}
        # `cnnjepa.__version__` and the lazy public names are the package's own.
        against -= {"cnnjepa"}
        if path == ROOT / "cnnjepa" / "__main__.py":
            against -= {"cnnjepa.cli.main"}
        assert not against, f"{path.relative_to(ROOT)} imports {against}"
        if room == "cnnjepa":
            assert not {m for m in imports(path) if m.split(".")[0] in ("ray", "optuna", "typer")}, path


def test_schemas_and_commands_load_nothing_heavy_at_the_top() -> None:
    for room in ("schemas", "cli"):
        for path in (ROOT / room).glob("*.py"):
            heavy = {m for m in imports(path, top_level_only=True) if m.split(".")[0] in HEAVY}
            assert not heavy, f"{path.relative_to(ROOT)} imports {heavy}"


def test_files_are_one_concept_long() -> None:
    for room in ALLOWED:
        for path in (ROOT / room).glob("**/*.py"):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            assert lines <= 400, f"{path.relative_to(ROOT)} has {lines} lines"


def test_the_generated_references_and_tables_are_not_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec and spec.loader
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    for path, text in generate.references().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is stale: run `make docs`"


def test_every_dependency_has_its_reason() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[<>=\[ ]", line)[0].lower() for line in project["dependencies"]}
    extras = [*project["optional-dependencies"]["dev"], *project["optional-dependencies"]["docs"]]
    development = {re.split(r"[<>=\[ ]", line)[0].lower() for line in extras}
    told = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8").lower()
    assert not {name for name in names if f"| {name} |" not in told}
    assert not {name for name in development if name not in told}


def test_the_links_in_the_documents_lead_somewhere() -> None:
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
