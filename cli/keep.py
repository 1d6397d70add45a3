"""`cnnjepa keep`."""

from pathlib import Path
from typing import Annotated

import typer

from cnnjepa.cli.options import RootOption, at_home

EXAMPLE = "Example:  cnnjepa keep predictor-ablation --to results && cnnjepa report --root results"


def keep(
    studies: Annotated[list[str], typer.Argument(help="Names of studies or searches.", metavar="STUDY ...")],
    to: Annotated[
        Path, typer.Option("--to", help="Folder that can be committed or sent.", metavar="DIR", callback=at_home)
    ],
    root: RootOption = Path(),
) -> None:
    """Copy the input of a report: results, configs, logged figures and measured steps of studies, settings and tables
    of trials of searches. No checkpoints, images, absolute paths or host names are copied.

    A study becomes two files, study.yaml and trials.jsonl (one line per trial). `cnnjepa report --root DIR` and
    `cnnjepa status --root DIR` read the folder like any other root; a report has the same tables.
    """
    from cnnjepa.ablations.study_folder import StudyFolder

    for name in studies:
        StudyFolder(root, name).refuse_absent()
    from cnnjepa.ablations.keep import keep_search, keep_step_costs, keep_study
    from cnnjepa.cli.terminal import console, say
    from cnnjepa.commands import command

    out, reported = console(), False
    for name in dict.fromkeys(studies):
        if keep_search(root, name, to):
            say(out, f"{name}: a search's settings and table of trials in {to}")
            continue
        kept = keep_study(root, name, to)
        reported = True
        say(out, f"{name}: {kept.trials} trials, {kept.bytes / 1e6:.2f} MB in {to}")
        if kept.missing:
            left = ", ".join(kept.missing[:4]) + (" …" if len(kept.missing) > 4 else "")
            say(console(stderr=True), f"warning: {name}: {len(kept.missing)} without a result yet: {left}")
    if keep_step_costs(root, to):
        say(out, f"measured steps of the methods: benchmarks/method_cost.json in {to}")
    if reported:
        say(out, f"Look:  {command('cnnjepa', 'report', root=to)}")
