"""docs/sources.md holds every published setting; citations lead to it, and its values are those of the presets."""

import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple, get_args

import yaml

from cnnjepa.schemas.fields import config_fields
from cnnjepa.schemas.load import load_config

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "sources.md").read_text(encoding="utf-8")
ROW = re.compile(r'^\| <a id="([a-z0-9-]+)"></a>`([a-z0-9-]+)` \| (.*) \| (.*) \| (.*) \| (.*) \|$', re.MULTILINE)
CITATION = re.compile(r"sources\.md#([A-Za-z0-9_-]+)")
SECTION = re.compile(
    r"\b[Pp]aper[:,]? ((?:I{1,3}|IV|VI?)(?:-[A-F])?)\b(?:(?:,| and) ((?:I{1,3}|IV|VI?)(?:-[A-F])?)\b)?"
)
ARXIV = re.compile(r"\b[aA]r[xX]iv:? ?(\d{4}\.\d{5})")
NUMBER = re.compile(r"(?<![\w.-])\d[\d,]*(?:\.\d+)?(?:e-?\d+)?(?![\w])")


class Row(NamedTuple):
    """One setting of the page."""

    key: str
    published: str
    source: str
    here: str


class Group(NamedTuple):
    """Values that several presets share, as one part of a row's last column."""

    presets: tuple[str, ...]
    values: dict[str, Any]
    differs: bool


ROWS = [Row(key, published, source, here) for key, _, _, published, source, here in ROW.findall(PAGE)]


def groups(row: Row) -> list[Group]:
    found = []
    for part in row.here.split(";"):
        tokens = re.findall(r"`([^`]+)`", part)
        values = dict(token.split("=", 1) for token in tokens if "=" in token)
        presets = tuple(re.findall(r"`([^`]+)`", part.partition(": `")[0])) if values else ()
        found.append(Group(presets, {k: yaml.safe_load(v) for k, v in values.items()}, "differs" in part))
    return found


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        leaves |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return leaves


def atoms(value: Any) -> list[Any]:
    """The numbers and words of a value; switches and null have none."""
    if isinstance(value, list):
        return [atom for part in value for atom in atoms(part)]
    return [] if value is None or isinstance(value, bool) else [value]


def is_published(atom: Any, published: str) -> bool:
    if isinstance(atom, str):
        return re.search(rf"(?<!\w){re.escape(atom)}(?!\w)", published) is not None
    return float(atom) in {float(number.replace(",", "")) for number in NUMBER.findall(published)}


def texts() -> dict[str, str]:
    """Every file of code, presets, studies, tests and documents that git has, or would have."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    assert listed.returncode == 0, f"these tests need a git checkout: {listed.stderr}"
    names = [n for n in listed.stdout.splitlines() if n.endswith((".py", ".yaml", ".md")) and "results/" not in n]
    return {n: (ROOT / n).read_text(encoding="utf-8") for n in names if (ROOT / n).is_file() and not _linked(ROOT / n)}


def _linked(path: Path) -> bool:
    return any(part.is_symlink() for part in (path, *path.parents) if part.is_relative_to(ROOT))


def test_every_row_is_read_and_has_a_key_of_its_own() -> None:
    tables = PAGE[PAGE.index("## CNN-JEPA: the model") :]
    data = [line for line in tables.splitlines() if line.startswith("|") and not line.startswith(("| key", "|---"))]
    assert len(ROWS) == len(data) > 80
    assert all(anchor == shown for anchor, shown, *_ in ROW.findall(PAGE))
    assert len({row.key for row in ROWS}) == len(ROWS)


def test_the_values_are_those_of_the_presets() -> None:
    checked = 0
    for row in ROWS:
        for group in groups(row):
            for preset in group.presets:
                config = flat(load_config(preset).model_dump(mode="json"))
                for path, value in group.values.items():
                    assert path in config, f"{row.key}: {preset} has no {path}"
                    assert config[path] == value, f"{row.key}: {preset} has {path}={config[path]}"
                    checked += 1
            assert bool(group.presets) == bool(group.values), f"{row.key}: values without a preset, or the reverse"
    assert checked > 200


def test_values_that_are_not_the_published_ones_say_so() -> None:
    for row in ROWS:
        for group in groups(row):
            for path, value in group.values.items():
                same = all(is_published(atom, row.published) for atom in atoms(value))
                assert same != group.differs, f"{row.key}: {path}={value}, published: {row.published}"


def test_every_file_named_exists() -> None:
    for row in ROWS:
        for token in re.findall(r"`([^`]+)`", row.here):
            if "/" in token:
                assert (ROOT / token).is_file(), f"{row.key} names {token}"


def test_every_row_names_its_source() -> None:
    defined = dict(re.findall(r"^\[([^\]]+)\]: (https://\S+)$", PAGE, re.MULTILINE))
    named = set(re.findall(r"\[([^\]]+)\](?!:)", PAGE))
    assert set(defined) <= named, f"links that nothing uses: {set(defined) - named}"
    for row in ROWS:
        files = re.findall(r"\[([^\]]+)\]", row.source)
        assert not [file for file in files if file not in defined], f"{row.key}: {files}"
        assert files or SECTION.search(row.source) or ARXIV.search(row.source) or "released code" in row.source or (
            "torchvision" in row.source
        ), row.key  # fmt: skip
    for name, url in defined.items():
        assert url.endswith("/" + name.rpartition(": ")[2]), name
        assert re.search(r"/blob/([0-9a-f]{40}|v\d+\.\d+\.\d+)/", url), f"{name} is at no fixed commit"


def test_every_citation_leads_to_a_row_or_a_section() -> None:
    headings = {
        re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    }
    known = {row.key for row in ROWS} | headings
    sections = set(re.findall(r"^\| ([IV]+(?:-[A-F])?) \|", PAGE, re.MULTILINE))
    papers = set(re.findall(r"^\| arXiv (\d{4}\.\d{5}) \|", PAGE, re.MULTILINE))
    cited = 0
    for name, text in texts().items():
        flowed = re.sub(r"\s*\n\s*#?\s*", " ", text)  # a citation may be broken over two lines
        for key in CITATION.findall(flowed):
            if key != "KEY":
                assert key in known, f"{name} cites docs/sources.md#{key}"
                cited += name != "docs/sources.md"
        for pair in SECTION.findall(flowed):
            unknown = {section for section in pair if section} - sections
            assert not unknown, f"{name} cites a section of the paper that does not exist: {unknown}"
        assert set(ARXIV.findall(flowed)) <= papers, f"{name} cites a paper that docs/sources.md does not list"
    assert cited > 0


def test_no_file_cites_a_document_that_is_not_in_the_repository() -> None:
    absent = re.compile(r"(?<![\w-])(?:" + "|".join(("METH" + "OD", "DES" + "IGN")) + r")\b")
    assert not {name: found for name, text in texts().items() if (found := absent.findall(text))}


def test_every_document_and_test_that_is_named_exists() -> None:
    named = re.compile(r"(?<![\w/.-])(?:docs|tests)/[\w/-]+\.(?:md|py)\b")
    for name, text in texts().items():
        if name not in ("docs/log.md", "CHANGELOG.md"):  # old entries name what stood there then
            absent = {path for path in named.findall(text) if not (ROOT / path).is_file()}
            assert not absent, f"{name} names {absent}"


def test_every_number_of_the_method_and_its_training_names_its_source() -> None:
    """In its own docstring or, where a whole section has one source, in the section's."""
    about = {row.key: {path for group in groups(row) for path in group.values} for row in ROWS}
    cited = 0
    for field in config_fields():
        own = " ".join((field.info.description or "").split())
        section = "" if "Source:" in own else " ".join((field.owner.__doc__ or "").split())
        keys = CITATION.findall(own) or CITATION.findall(section)
        trained = field.path.split(".")[0] in ("method", "optimizer", "schedule") or ".augmentation." in field.path
        if trained and _is_numeric(field.info.annotation):
            assert "Source:" in own or keys, f"{field.owner.__name__}.{field.path} names no source"
        if keys and ("Source:" in own or _is_numeric(field.info.annotation)):
            paths = set().union(*(about.get(key, set()) for key in keys))
            assert field.path in paths, f"{field.owner.__name__}.{field.path} cites {keys}: about {sorted(paths)}"
            cited += 1
    assert cited > 90


def _is_numeric(annotation: Any) -> bool:
    return annotation in (int, float) or any(_is_numeric(part) for part in get_args(annotation))
