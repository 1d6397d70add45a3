"""`cnnjepa archive`, and its old name `cnnjepa keep`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from cnnjepa.cli.options import RootOption, at_home

EXAMPLE = "Example:  cnnjepa archive predictor-ablation --to results && cnnjepa report --root results"


StudiesArgument = Annotated[list[str], typer.Argument(help="Names of studies or searches.", metavar="STUDY ...")]
ToOption = Annotated[
    Path, typer.Option("--to", help="Folder that can be committed or sent.", metavar="DIR", callback=at_home)
]


def archive(studies: StudiesArgument, to: ToOption, root: RootOption = Path()) -> None:
    """Copy what a report reads: of studies the results, configs, logged figures and measured steps, of searches the
    settings and tables of trials. No checkpoints, images, absolute paths or host names are copied.

    A study becomes two files, study.yaml and trials.jsonl (one line per trial). `cnnjepa report --root DIR` and
    `cnnjepa status --root DIR` read the folder like any other root; a report has the same tables.
    """
    from cnnjepa.ablations.study_folder import StudyFolder

    for name in studies:
        StudyFolder(root, name).refuse_absent()
    from cnnjepa.ablations.archive import archive_search, archive_step_costs, archive_study
    from cnnjepa.cli.terminal import console, say
    from cnnjepa.commands import command
    from cnnjepa.schemas.numbers import counted

    out, reported = console(), False
    for name in dict.fromkeys(studies):
        if archive_search(root, name, to):
            say(out, f"{name}: a search's settings and table of trials in {to}")
            continue
        archived = archive_study(root, name, to)
        reported = True
        say(out, f"{name}: {counted(archived.trials, 'trial')}, {archived.bytes / 1e6:.2f} MB in {to}")
        if archived.missing:
            left = ", ".join(archived.missing[:4]) + (" …" if len(archived.missing) > 4 else "")
            say(console(stderr=True), f"warning: {name}: {len(archived.missing)} without a result yet: {left}")
    if archive_step_costs(root, to):
        say(out, f"measured steps of the methods: benchmarks/method_cost.json in {to}")
    if reported:
        say(out, f"Look:  {command('cnnjepa', 'report', root=to)}")


def keep(studies: StudiesArgument, to: ToOption, root: RootOption = Path()) -> None:
    """Deprecated name of `cnnjepa archive`."""
    print("cnnjepa: `cnnjepa keep` is deprecated; use `cnnjepa archive`", file=sys.stderr)
    archive(studies, to, root)
