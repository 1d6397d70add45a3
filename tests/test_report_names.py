"""Names that a user chose in every output of the report: shown as they are, and never read as anything else."""

import csv
import io
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from matplotlib.font_manager import findfont, get_font
from nasty_names import NASTY
from studies import planned, write_study

from cnnjepa.ablations.pool import Pool
from cnnjepa.ablations.report.build import build_report
from cnnjepa.ablations.report.escape import csv_value, latex_text, markdown_text, plotly_text
from cnnjepa.ablations.report.figures.cost import CostPoint, _panel
from cnnjepa.ablations.report.figures.style import canvas, picture
from cnnjepa.ablations.report.figures.text import FONTS, figure_text
from cnnjepa.ablations.report.tables.formats import comma_separated, latex
from cnnjepa.ablations.report.tables.table import Column, Table, number_cell, text_cell
from cnnjepa.ablations.study_folder import StudyFolder, status_of
from cnnjepa.ablations.study_tensorboard import StudyTensorBoard
from cnnjepa.names import one_line, shortened
from cnnjepa.schemas.study import Study

pytestmark = pytest.mark.medium

# Two data sets whose names differ only in case: a file system may not distinguish them.
DATASETS = "My $Set [x]", "my $set [x]"
STUDY = Study(
    name="nasty", preset="smoke", question="Which [x] is *best*?\n# no heading $a$",
    axes={"arm [/x] $y$": {name: {"optimizer.lr": 0.001 * (n + 1)} for n, name in enumerate(NASTY)}},
)  # fmt: skip


def dataset(config: Any) -> str:
    return DATASETS[round(1000 * config.optimizer.lr) % 2]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a reported study whose arms have all the names."""
    root = tmp_path_factory.mktemp("nasty")
    write_study(root, STUDY, lambda arm, seed: (60.0 + NASTY.index(arm), 50.0), planned(STUDY, dataset))
    build_report(root, [])
    return root


@pytest.fixture(scope="module")
def report(root: Path) -> Path:
    return root / "studies" / "nasty" / "report"


@pytest.mark.medium
def test_no_cell_of_a_csv_is_a_formula_and_numbers_stay_numbers(report: Path) -> None:
    for text in ("=1+1", "+x", "-x", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "--", "-1+1", "-"):
        assert csv_value(text) == f"'{text}"
    for value in (-1.5, 3, "-1.5", "+1e-4", "1:30", "a=1", ""):
        assert csv_value(value) == value
    assert csv_value(None) == ""
    table = Table("t", "", (Column("arm", "arm"), Column("gap", "gap")), ((text_cell("=1+1"), number_cell(-0.25, 2)),))
    assert comma_separated(table) == "arm,gap\n'=1+1,-0.25\n"
    (runs,) = (report / "tables").glob("nasty_runs.csv")
    arms = [row["arm"] for row in csv.DictReader(io.StringIO(runs.read_text(encoding="utf-8"), newline=""))]
    assert arms == [csv_value(name) for name in NASTY]


@pytest.mark.medium
def test_every_file_of_a_report_has_a_name_of_its_own(report: Path) -> None:
    names = [str(path.relative_to(report)) for path in report.rglob("*") if path.is_file()]
    assert len({name.casefold() for name in names}) == len(names)
    accuracies = [name for name in names if re.match(r"tables/nasty_accuracy_.*_held_out\.csv$", name)]
    assert len(accuracies) == 2 and all(re.fullmatch(r"[A-Za-z0-9_./-]+", name) for name in names)
    together = report.parents[2] / "report" / "tables"
    assert len(list(together.glob("main_*_held_out.csv"))) == len(
        {p.name.casefold() for p in together.glob("main_*_held_out.csv")}
    )


def rows_of(tex: str) -> Iterator[str]:
    yield from tex.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()


def test_latex_rows_begin_with_no_argument_and_hold_plain_letters() -> None:
    column = Column("arm", "[x] *", numeric=False)
    tex = latex(Table("t", "caption [x]", (column,), tuple((text_cell(name),) for name in NASTY)))
    assert tex.isascii() and all(row[0] not in "[*" for row in rows_of(tex))
    assert r"\toprule" + "\n[" not in tex
    for name, safe in (
        ("[abl] x", "{[}abl{]} x"), ("*star", "{*}star"), ("naïve", r'na\"{\i}ve'), ("猫", r"\textbackslash{}u732b"),
        ("cost $x_^$", r"cost \$x\_\textasciicircum{}\$"), ("--", "-{}-"), ("a\nb", "a b"), ("#1", r"\#1"),
        ("ç ß ð", r"\c{c} \ss{} \textbackslash{}xf0"), ('"q"', r"{\char34}q{\char34}"),
    ):  # fmt: skip
        assert latex_text(name) == safe
    longest = max(len(line) for row in rows_of(tex) for line in row.split(r"\\"))
    assert longest < 120  # a name of 300 letters is broken into lines


def test_markdown_shows_names_as_they_are(report: Path) -> None:
    for text, safe in (
        ("# x", r"\# x"), ("1. x", r"1\. x"), ("- x", r"\- x"), ("a|b", r"a\|b"), ("$x$ ~y~", r"\$x\$ \~y\~"),
        ("&lt;", "&amp;lt;"), ("<b>", r"\<b\>"), ("two\nlines", "two lines"), ("-1.5", "-1.5"), ("--", r"\--"),
    ):  # fmt: skip
        assert markdown_text(text) == safe
    text = (report / "report.md").read_text(encoding="utf-8")
    assert r"## nasty: Which \[x\] is \*best\*? # no heading \$a\$" in text.splitlines()
    for name in NASTY:
        assert f"| {markdown_text(name)} |" in text


class Page(HTMLParser):
    """Elements of a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.cells: set[str] = set()
        self._script = ""
        self.data = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self._script = dict(attrs).get("id") or "" if tag == "script" else ""

    def handle_data(self, data: str) -> None:
        if self._script == "data":
            self.data += data
        else:
            self.cells.add(data)


def test_the_page_holds_names_as_text(report: Path) -> None:
    page = Page()
    page.feed((report / "report.html").read_text(encoding="utf-8"))
    assert not page.elements & {"bold"} and "\x1b" not in "".join(page.cells)
    for name in NASTY:
        assert {name, name.replace("\x1b", "\\x1b"), name.replace("\n", "\\n"), name.replace("\t", "\\t")} & page.cells
    data = json.loads(page.data)
    arms = [use["arm"] for trial in data["trials"].values() for use in trial["uses"]]
    assert sorted(arms) == sorted(NASTY)
    hovers = [text for plot in data["plots"].values() for v in plot.get("variants", []) for t in v["traces"]
              for text in t["text"]]  # fmt: skip
    assert any(text.startswith("<b>&lt;b&gt;bold&lt;/b&gt;</b>") for text in hovers)
    assert plotly_text("x" * 300) == shortened("x" * 300) and len(plotly_text("x" * 300)) <= 60


def test_pictures_have_a_glyph_for_every_letter_and_a_legend_entry_for_every_name() -> None:
    """Warnings are errors here, and matplotlib warns of a glyph that is missing."""
    points = [CostPoint(name, "", 1.0 + n, 50.0 + n, None, None, 1e6) for n, name in enumerate(NASTY[:6])]
    with canvas(8, 4) as figure:
        axis = figure.subplots()
        _panel(axis, points, "hours", 1.0)
        shown = [text.get_text() for text in axis.get_legend().get_texts()]
        assert len(shown) == 6 and shown[0].startswith("cost $x_^$, ") and shown[1].lstrip("\u200b") == "_plain_, 1 M"
        made = picture(figure, "p", "")
    assert made.png.startswith(b"\x89PNG") and b"\x1b" not in made.svg


@pytest.mark.medium
@pytest.mark.parametrize("name", NASTY)
def test_a_label_of_a_picture_is_drawn(name: str) -> None:
    with canvas(9, 3) as figure:
        axis = figure.subplots()
        axis.plot([0, 1], label=figure_text(name))
        axis.legend()
        axis.set_title(figure_text(name))
        figure.savefig(io.BytesIO(), format="svg")
        assert axis.get_legend() is not None and len(axis.get_legend().get_texts()) == 1
    assert len(figure_text(name)) <= 61 and "\n" not in figure_text(name)


@pytest.mark.medium
def test_names_of_300_letters_leave_room_for_the_pictures(tmp_path: Path) -> None:
    arms = {f"{'long ' * 60}{n}": {"optimizer.lr": 0.001 * n} for n in range(1, 7)}
    grid = Study(name="long", preset="smoke", axes={"arm": arms, "predictor.depth": (1, 2)})
    write_study(tmp_path, grid, lambda arm, seed: (60.0, 50.0))
    build_report(tmp_path, ["long"])
    figures = {path.stem for path in (tmp_path / "studies" / "long" / "report" / "figures").glob("*.png")}
    assert figures >= {"long_arms_held_out", "long_along_depth_held_out", "long_curves", "long_cost_accuracy"}


def test_letters_that_no_font_has_are_their_codes() -> None:
    installed = any(get_font(findfont(name)).get_char_index(ord("猫")) for name in FONTS)
    assert figure_text("猫_a") == ("猫_a" if installed else "\\u732b_a")
    assert figure_text("$a$ 50 %") == "$a$ 50 %" and one_line("a\n b") == "a b"


def test_tensorboard_has_a_folder_for_every_trial(tmp_path: Path) -> None:
    write_study(tmp_path, STUDY, lambda arm, seed: (60.0, 50.0), planned(STUDY, dataset))
    folder, pool = StudyFolder(tmp_path, "nasty"), Pool(tmp_path)
    records = folder.trials()
    board = StudyTensorBoard(folder, pool, records)
    board.update({record.key: status_of(pool, record) for record in records})
    board.close()
    runs = list((folder.path / "tensorboard").iterdir())
    assert len(runs) == len({run.name.casefold() for run in runs}) == len(NASTY)
    assert max(len(run.name.encode()) for run in runs) <= 200
    assert all(len(list(run.glob("events*"))) >= 1 for run in runs)
