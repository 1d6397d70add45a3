"""`cnnjepa status`."""

from pathlib import Path
from typing import Annotated

import typer

from cnnjepa.cli.options import RootOption

EXAMPLE = "Example:  cnnjepa status predictor-ablation --follow"


def status(
    study: Annotated[
        str | None, typer.Argument(help="Name of a study; without it, one line per study.", metavar="STUDY")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Update every two seconds until Ctrl-C.")] = False,
    root: RootOption = Path(),
) -> None:
    """Show the status of a study's trials. Any terminal or machine with access to its folder can run this."""
    from cnnjepa.ablations.study_folder import StudyFolder, refuse_no_studies

    if study is None:
        refuse_no_studies(root)
    else:
        StudyFolder(root, study).refuse_absent()
    from cnnjepa.cli.study_status import follow_study, list_studies, show_study
    from cnnjepa.cli.terminal import console

    out = console()
    if study is None:
        list_studies(out, root)
    elif follow:
        follow_study(out, root, study)
    else:
        show_study(out, root, study)
