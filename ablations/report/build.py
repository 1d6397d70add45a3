"""Report folders: one per study, and one over all studies."""

from dataclasses import dataclass
from pathlib import Path

from cnnjepa.ablations.report.escape import markdown_text
from cnnjepa.ablations.report.figures.cost import draw_cost
from cnnjepa.ablations.report.figures.speed import draw_speed, read_speed
from cnnjepa.ablations.report.figures.style import Picture
from cnnjepa.ablations.report.output import ReportFolder
from cnnjepa.ablations.report.page.page_file import KINDS, page
from cnnjepa.ablations.report.reading import ReportedTrial, StudyData, below_root, read_studies
from cnnjepa.ablations.report.study_report import StudyReport, best_trial, one_a_place, study_report
from cnnjepa.ablations.report.tables import formats
from cnnjepa.ablations.report.tables.claims_table import claims_table
from cnnjepa.ablations.report.tables.main_table import main_tables, published_table
from cnnjepa.ablations.report.tables.runs_table import runs_table
from cnnjepa.ablations.report.tables.step_cost_table import step_cost_table
from cnnjepa.ablations.report.tables.table import Table
from cnnjepa.ablations.step_cost_file import read_step_costs, step_cost_path
from cnnjepa.schemas import ConfigError


@dataclass(frozen=True)
class Built:
    """The result of writing a report."""

    pages: tuple[Path, ...]
    """Page of each report; the report over all studies is last."""
    warnings: tuple[str, ...]
    """One warning per file that could not be read."""
    sentences: tuple[tuple[str, tuple[str, ...]], ...]
    """Study → its summary in words."""


def build_report(root: Path, names: list[str], out: Path | None = None, run: str | None = None) -> Built:
    """Write the reports.

    Each named study (all below `root` if none is named) gets `studies/<name>/report/`. If several or none are named, a
    report over all of them goes into `root/report/`. `out` replaces the folder of the single study's report, or of the
    report over all; in the second case the studies' reports go below `out` too. `run` is the beginning of the hash of
    the trial whose features are drawn.

    Raises ConfigError when there is no study, or no such run; RunError when the disk refuses.
    """
    studies, warnings = read_studies(root, names)
    over_all = not names or len(studies) > 1
    chosen = {study.name: best_trial(study) for study in studies}
    if run is not None:
        chosen |= _asked_run(studies, run)
    reports = [study_report(study, chosen[study.name]) for study in studies]
    speeds, unread = _speeds(root)
    warnings += unread
    pages = []
    for made in reports:
        own = out if out and not over_all else (out or root) / "studies" / made.study.name / "report"
        pages.append(_write(own, f"Study {made.study.name}", [made], [], speeds))
    if over_all:
        comparisons = [comparison for made in reports for comparison in made.comparisons]
        claims = claims_table(one_a_place(comparisons, "held_out"), "claims", "Claims and their results")
        main = [claims] if claims else []
        main += [*main_tables(comparisons), published_table("in100"), published_table("in1k")]
        costs, unread_costs = _step_costs(root)
        main += costs
        warnings += unread_costs
        pictures = [draw_cost(one_a_place(comparisons, "published"), "cost_accuracy"), *speeds]
        pages.append(_write(out or root / "report", "CNN-JEPA Bench: all studies", reports, main, pictures))
    warnings += [f"study {study.name}: {warning}" for study in studies for warning in study.warnings]
    words = tuple((made.study.name, tuple(s.text for s in made.sentences)) for made in reports)
    return Built(tuple(pages), tuple(warnings), words)


def _asked_run(studies: list[StudyData], run: str) -> dict[str, ReportedTrial | None]:
    """Return study → requested trial, for every study that has it."""
    finished = {study.name: [t for t in study.trials if t.result] for study in studies}
    found = {name: next((trial for trial in trials if _begins(trial, run)), None) for name, trials in finished.items()}
    matching = {trial.record.key: trial.page for trials in finished.values() for trial in trials if _begins(trial, run)}
    if len(matching) != 1 or not run:
        pages = {trial.record.key: trial for trials in finished.values() for trial in trials}.values()
        runs = [trial.short for trial in pages]
        known = sorted(trial.short if runs.count(trial.short) == 1 else trial.page for trial in pages)
        what = f"{len(matching) or 'no'} finished trials have names that begin with it"
        some = ", ".join(known[:6]) + (f" and {len(known) - 6} more" if len(known) > 6 else "")
        raise ConfigError(f"--run {run}: {what}; finished trials are {some or '(none yet)'}")
    return {name: trial for name, trial in found.items() if trial}


def _begins(trial: ReportedTrial, run: str) -> bool:
    """Return whether `run` begins the trial's hash or the name of its page, which distinguishes probes of the same
    run."""
    return trial.record.pretrain_hash.startswith(run) or trial.page.startswith(run)


def _speeds(root: Path) -> tuple[list[Picture], list[str]]:
    files, warnings = read_speed(root / "benchmarks" / "out")
    return [draw_speed(speed, source, f"speed_{source}") for source, speed in files.items()], warnings


def _step_costs(root: Path) -> tuple[list[Table], list[str]]:
    """Return the table of measured steps, if there is one, and a warning for a file that cannot be read."""
    path = step_cost_path(root)
    if not path.is_file():
        return [], []
    try:
        return [step_cost_table(read_step_costs(path), "step_cost")], []
    except ConfigError as error:
        return [], [below_root(str(error), root)]


def _write(path: Path, title: str, reports: list[StudyReport], main: list[Table], pictures: list[Picture]) -> Path:
    """Write one report: page, Markdown, tables and pictures. Pictures of a study go only into the study's own
    report."""
    folder = ReportFolder(path)
    runs = [runs_table(made.study, f"{made.study.name}_runs", path) for made in reports]
    alone = len(reports) == 1 and not main
    tables = [*main]
    for made, table in zip(reports, runs, strict=True):
        tables += [*made.tables, table]
    for table in tables:
        folder.write(f"tables/{table.name}.md", formats.markdown(table))
        folder.write(f"tables/{table.name}.csv", formats.comma_separated(table))
        folder.write(f"tables/{table.name}.tex", formats.latex(table))
        folder.write(f"tables/{table.name}.html", formats.html_document(table))
    drawn = [*(reports[0].pictures if alone else []), *pictures]
    for one in drawn:
        folder.write(f"figures/{one.name}.svg", one.svg)
        folder.write(f"figures/{one.name}.png", one.png)
    galleries = [made.gallery for made in reports if made.gallery] if alone else []
    for one in galleries:
        folder.write(f"gallery/{one.name}.svg", one.svg)
        folder.write(f"gallery/{one.name}.png", one.png)
    folder.write("report.tex", formats.latex_document([table.name for table in tables], title))
    folder.write("report.md", _markdown(title, reports, tables, drawn))
    folder.write("report.html", page(title, reports, runs, main, pictures, path))
    folder.close()
    return path / "report.html"


def _markdown(title: str, reports: list[StudyReport], tables: list[Table], drawn: list[Picture]) -> str:
    parts = [f"# {markdown_text(title)}\n"]
    for made in reports:
        question = f": {made.study.study.question}" if made.study.study.question else ""
        parts.append(f"## {markdown_text(made.study.name + question)}\n")
        for sentence in made.sentences:
            mark = f"**{KINDS[sentence.kind]}.** " if KINDS[sentence.kind] else ""
            parts.append(f"- {mark}{markdown_text(sentence.text)}")
        parts += [f"- {markdown_text(remark)}" for remark in made.remarks]
        parts.append("")
    parts.append("## Tables\n")
    parts += [formats.markdown(table) for table in tables]
    if drawn:
        parts.append("## Figures\n")
        parts += [
            f"![{markdown_text(one.caption)}](figures/{one.name}.png)\n\n{markdown_text(one.caption)}\n"
            for one in drawn
        ]
    return "\n".join(parts).rstrip() + "\n"
