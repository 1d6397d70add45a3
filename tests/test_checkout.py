"""The links inside the package: a checkout that has text files in their place is told what to do."""

import subprocess
import sys
from pathlib import Path

import pytest

from cnnjepa.checkout import LINKS, refuse_broken_links

ROOT = Path(__file__).parents[1]


def git(folder: Path, *words: str) -> None:
    author = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", *author, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def without_links(tmp_path: Path) -> Path:
    """A clone with `core.symlinks=false` of a repository with the package's first files and its links."""
    source = tmp_path / "source"
    (source / "cnnjepa").mkdir(parents=True)
    for name in ("__init__.py", "checkout.py"):
        (source / "cnnjepa" / name).write_bytes((ROOT / "cnnjepa" / name).read_bytes())
    for name in LINKS:
        (source / name).mkdir()
        (source / name / "__init__.py").touch()
        (source / "cnnjepa" / name).symlink_to(f"../{name}")
    git(source, "init", "--quiet")
    git(source, "add", "--all")
    git(source, "commit", "--quiet", "--message", "all")
    git(tmp_path, "clone", "--quiet", "-c", "core.symlinks=false", str(source), "clone")
    return tmp_path / "clone"


def test_links_that_are_text_files_are_named_with_the_commands_that_restore_them(without_links: Path) -> None:
    package = without_links / "cnnjepa"
    assert (package / "schemas").read_text() == "../schemas"
    words = [sys.executable, "-c", "import cnnjepa"]
    done = subprocess.run(words, cwd=without_links, capture_output=True, text=True, env={"PYTHONPATH": "."})
    (said,) = (line for line in done.stderr.splitlines() if line.startswith("ImportError: "))
    assert all(str(package / name) in said for name in LINKS) and "not a folder" in said
    first, second = said.split("`")[1:4:2]
    assert second == "git checkout -- cnnjepa/schemas cnnjepa/ablations cnnjepa/cli"
    for command in (first, second):
        git(without_links, *command.split()[1:])
    assert (package / "schemas").is_symlink()
    assert subprocess.run(words, cwd=without_links, env={"PYTHONPATH": "."}).returncode == 0


def test_a_link_that_is_missing_is_named_alone(without_links: Path) -> None:
    package = without_links / "cnnjepa"
    for name in LINKS:
        (package / name).unlink()
        if name != "cli":
            (package / name).mkdir()
    with pytest.raises(ImportError, match=r"/cnnjepa/cli: not a folder\. .*git checkout -- cnnjepa/cli`"):
        refuse_broken_links(package)


def test_a_package_inside_a_zip_file_has_no_folders_to_check(tmp_path: Path) -> None:
    (tmp_path / "all.zip").touch()
    refuse_broken_links(tmp_path / "all.zip" / "cnnjepa")
