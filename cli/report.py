"""`cnnjepa report`."""

from pathlib import Path
from typing import Annotated

import typer

from cnnjepa.cli.options import RootOption, at_home

EXAMPLE = "Example:  cnnjepa report predictor-ablation"


def report(
    studies: Annotated[
        list[str] | None, typer.Argument(help="Names of studies; by default all below the root.", metavar="[STUDY ...]")
    ] = None,
    root: RootOption = Path(),
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder to write. For several studies, it gets the report over all of them, and "
            "DIR/studies/NAME/report that of each.", metavar="DIR", callback=at_home,
        ),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(
            "--run", help="Trial whose features are drawn: the beginning of its hash. The best by default.",
            metavar="HASH",
        ),
    ] = None,
) -> None:  # fmt: skip
    """Write a report on studies: tables (Markdown, CSV, LaTeX, HTML), figures, and a page to open in a browser.

    A study's report is written to studies/NAME/report/. If several studies or none are named, a report over all of
    them is also written to report/. An unfinished study is reported with its current results, and missing or
    unreadable parts are listed.
    """
    from cnnjepa.ablations.study_folder import StudyFolder, refuse_no_studies

    for name in studies or []:
        StudyFolder(root, name).refuse_absent()
    if not studies:
        refuse_no_studies(root)
    from cnnjepa.ablations.report.build import build_report
    from cnnjepa.cli.terminal import console, say
    from cnnjepa.commands import quoted

    built = build_report(root, studies or [], out, run)
    terminal = console()
    for warning in built.warnings:
        say(console(stderr=True), f"warning: {warning}")
    for name, sentences in built.sentences:
        terminal.line()
        say(terminal, name)
        for sentence in sentences:
            say(terminal, f"  - {sentence}")
    terminal.line()
    say(terminal, "Look:  " + "  ".join(map(quoted, built.pages)))
