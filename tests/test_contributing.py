"""A contributor's first files: hooks that run, a CI file that calls the one script, forms that a forge can read."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.processes
def test_the_hooks_format_and_correct_a_python_file_without_a_network(tmp_path: Path) -> None:
    shutil.copy(ROOT / ".pre-commit-config.yaml", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parents[1])
    (tmp_path / "new.py").write_text("import sys\nimport os\nprint( sys.argv,os.sep )\n", encoding="utf-8")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "add", "new.py", ".pre-commit-config.yaml"], check=True)
    command = [sys.executable, "-m", "pre_commit", "run", "--files", "new.py"]
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert first.returncode == 1 and "files were modified by this hook" in first.stdout, first.stdout + first.stderr
    expected = "import os\nimport sys\n\nprint(sys.argv, os.sep)\n"
    assert (tmp_path / "new.py").read_text(encoding="utf-8") == expected
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0


def test_the_ci_file_calls_the_script_that_everybody_can_run() -> None:
    workflow = read(ROOT / ".github" / "workflows" / "ci.yml")
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    targets = re.findall(r"^make ([a-z-]+)$", script, re.MULTILINE)
    assert {"lint", "types", "docs-site", "test-all"} <= set(targets)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


@pytest.mark.parametrize("form", [form for form in FORMS if form.name != "config.yml"], ids=lambda path: path.stem)
def test_a_form_has_the_fields_that_a_forge_needs(form: Path) -> None:
    content = read(form)
    assert {"name", "description", "body"} <= content.keys()
    fields = content["body"]
    assert all(field["type"] in ("textarea", "input", "checkboxes", "dropdown") for field in fields)
    assert all(field["attributes"]["label"] for field in fields)
    names = [field["id"] for field in fields]
    assert len(set(names)) == len(names) and any(field.get("validations", {}).get("required") for field in fields)


def test_a_method_can_be_proposed() -> None:
    assert "method" in {form.stem for form in FORMS}
