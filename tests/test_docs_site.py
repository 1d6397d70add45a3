"""The documentation site: built without a warning, complete, and without anything loaded from elsewhere."""

import importlib.util
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from runs import small_config, train_alone

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def pages_of(nav: object) -> list[str]:
    """The pages that a navigation names, in order."""
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [page for part in parts for page in pages_of(part)]  # type: ignore[attr-defined]


def test_the_navigation_names_every_page_once() -> None:
    named = pages_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert sorted(named) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly from this tree in a folder of its own."""
    folder = tmp_path_factory.mktemp("site")
    for name in ("docs", "examples"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("cnnjepa", "schemas", "ablations", "cli"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "mkdocs.yml").write_bytes((ROOT / "mkdocs.yml").read_bytes())
    build = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    done = subprocess.run(build, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "build" / "site"


class References(HTMLParser):
    """Collects the links, sources and anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in ("script", "img", "iframe", "source") and "src" in values:
            self.loaded.append(values["src"])
        if tag == "link" and values.get("rel") in ("stylesheet", "icon", "preload", "preconnect", "modulepreload"):
            self.loaded.append(values["href"])


@pytest.mark.processes
def test_every_link_and_picture_of_the_site_exists(site: Path) -> None:
    pages = {path: References(path.read_text(encoding="utf-8")) for path in site.rglob("index.html")}
    assert len(pages) == len(list(DOCS.rglob("*.md")))
    missing = []
    for path, page in pages.items():
        for target in [*page.links, *page.loaded]:
            if re.match(r"(https?|mailto|data):", target):
                continue
            place, _, anchor = target.partition("#")
            file = (path.parent / place).resolve() if place else path.resolve()
            file = file / "index.html" if file.is_dir() else file
            known = pages.get(site / file.relative_to(site.resolve())) if file.is_relative_to(site.resolve()) else None
            if not file.is_file() or (anchor and known and anchor not in known.anchors):
                missing.append(f"{path.relative_to(site)}: {target}")
    assert missing == []


@pytest.mark.processes
def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    for path in site.rglob("index.html"):
        page = References(path.read_text(encoding="utf-8"))
        assert not [source for source in page.loaded if re.match(r"(https?:)?//", source)], path


@pytest.mark.processes
def test_the_python_reference_has_every_public_name(site: Path) -> None:
    import cnnjepa

    anchors = References((site / "api" / "index.html").read_text(encoding="utf-8")).anchors
    for name in set(cnnjepa.__all__) - {"__version__"}:
        assert [a for a in anchors if a.startswith("cnnjepa.") and a.endswith(f".{name}")], name


@pytest.mark.processes
def test_the_page_of_examples_shows_their_code(site: Path) -> None:
    page = (site / "examples" / "index.html").read_text(encoding="utf-8")
    for example in (ROOT / "examples").glob("*.py"):
        title = re.search(r"^# # (.+)$", example.read_text(encoding="utf-8"), re.MULTILINE)
        assert title and title[1] in page, example.name


def drawing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw", DOCS / "draw.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.medium
def test_the_pictures_are_those_that_the_script_draws(tmp_path: Path) -> None:
    train_alone(small_config("runtime.epochs=1", "warmup_epochs=0"), tmp_path / "run")
    written = drawing().main(tmp_path / "run", tmp_path / "pictures")
    assert {path.name for path in written} == {path.name for path in (DOCS / "pictures").iterdir()}
    assert all(path.stat().st_size > 5_000 for path in written)
    used = "".join(path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *DOCS.glob("*.md")])
    assert all(f"pictures/{path.name}" in used for path in written)
