"""`cnnjepa report`."""

from pathlib import Path
from typing import Annotated

import typer

from cnnjepa.cli.options import RootOption, at_home

EXAMPLE = "Example:  cnnjepa report predictor-ablation"


def report(
    studies: Annotated[
        list[str] | None, typer.Argument(help="Names of studies; all below the root by default.", metavar="[STUDY ...]")
    ] = None,
    root: RootOption = Path(),
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Where the one study's report, or the one over all studies, goes instead.", metavar="DIR",
            callback=at_home,
        ),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(
            "--run", help="Beginning of a finished trial's hash, whose features are drawn; the best by default.",
            metavar="HASH",
        ),
    ] = None,
) -> None:  # fmt: skip
    """Write a report of studies: tables (Markdown, CSV, LaTeX, HTML), pictures, and a page to open in a browser.

    Each study's report goes to studies/NAME/report/; with several studies, or none named, a report over all of them
    goes to report/ too. Unfinished studies are reported with their current results; missing or unreadable parts are
    named.
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
