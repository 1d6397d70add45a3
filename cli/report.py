"""`cnnjepa report`."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example:  cnnjepa report predictor-ablation"


def report(
    studies: Annotated[
        list[str] | None, typer.Argument(help="Names of studies; all below the root by default.", metavar="[STUDY ...]")
    ] = None,
    root: Annotated[Path, typer.Option("--root", help="Where studies/ and runs/ are.", metavar="DIR")] = Path("."),
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Where the one study's report, or the one over all studies, goes instead.", metavar="DIR"
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
    """Write what the studies found: tables (Markdown, CSV, LaTeX, HTML), pictures, and a page to open in a browser.

    Each study's report goes to studies/NAME/report/; with several studies, or none named, there is one over all in
    report/ too. Half-done studies are reported as they stand; what is missing or unreadable is named.
    """
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
