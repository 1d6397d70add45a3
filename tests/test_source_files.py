"""The fingerprint of a class from outside: its own file, and what it imports from its folder or package."""

import hashlib
from pathlib import Path

import pytest

from cnnjepa.schemas.source_files import fingerprint, source_files

FILES = {
    "mine.py": "import torch\nfrom parts import heads\nfrom cnnjepa.extend import Method\n",
    "parts/__init__.py": "",
    "parts/heads.py": "from .maths import norm\nfrom ..other import x\n",
    "parts/maths.py": "def norm():\n    import late\n",
    "parts/unused.py": "",
    "late.py": "import json, mine\n",
    "torch_extras.py": "",
    "cnnjepa/extend.py": "",
}


def written(folder: Path) -> Path:
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def digest(folder: Path) -> str:
    """The digest of the folder's `mine.py`; each test has its own folder, and files are read once."""
    return fingerprint("mine", str(folder / "mine.py"))


def test_the_files_are_those_imported_from_the_same_folder(tmp_path: Path) -> None:
    found = source_files("mine", str(written(tmp_path) / "mine.py"))
    assert {name: path.relative_to(tmp_path).as_posix() for name, path in found.items()} == {
        "mine": "mine.py",
        "parts": "parts/__init__.py",
        "parts.heads": "parts/heads.py",
        "parts.maths": "parts/maths.py",
        "late": "late.py",
    }


def test_of_an_installed_package_only_its_own_modules_count(tmp_path: Path) -> None:
    place = written(tmp_path / "site-packages")
    (place / "parts" / "heads.py").write_text("import mine\nimport late\nfrom . import maths\n", encoding="utf-8")
    found = source_files("parts.heads", str(place / "parts" / "heads.py"))
    assert set(found) == {"parts", "parts.heads", "parts.maths"}


@pytest.mark.parametrize(
    ("name", "changes"), [("mine.py", True), ("parts/maths.py", True), ("late.py", True), ("parts/unused.py", False)]
)
def test_an_edit_of_an_imported_file_changes_the_fingerprint(tmp_path: Path, name: str, changes: bool) -> None:
    before = digest(written(tmp_path / "before"))
    edited = written(tmp_path / "edited")
    with (edited / name).open("a", encoding="utf-8") as file:
        file.write("# edited\n")
    assert (digest(edited) != before) is changes


def test_a_single_file_has_the_digest_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import torch\n", encoding="utf-8")
    assert digest(tmp_path) == hashlib.sha256(b"import torch\n").hexdigest()
