"""Where studies stand, printed once or again and again."""

import time
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape

from cnnjepa.ablations.pool import Pool, Standing
from cnnjepa.ablations.study_folder import StudyFolder, TrialRecord, standing_of, study_names
from cnnjepa.cli.study_tables import counts_line, outcome_table, standings_table
from cnnjepa.schemas import ConfigError


def list_studies(console: Console, root: Path) -> None:
    """A line a study."""
    names = study_names(root)
    if not names:
        raise ConfigError(f"no studies below {root / 'studies'}; `cnnjepa ablate predictor --depths 1,2` makes one")
    for name in names:
        try:
            line = counts_line(*_look(root, name))
        except ConfigError as damage:
            line = f"unreadable: {damage}"
        console.print(f"[bold]{name}[/]  {escape(line)}", highlight=False, soft_wrap=True)


def show_study(console: Console, root: Path, name: str) -> None:
    """Its trials, and what has come out so far."""
    console.print(_picture(root, name))
    folder = StudyFolder(root, name)
    console.print(outcome_table(folder.study(), Pool(root), folder.trials()))


def follow_study(console: Console, root: Path, name: str) -> None:
    """The same picture, kept up to date until interrupted."""
    with Live(_picture(root, name), console=console, auto_refresh=False) as live:
        try:
            while True:
                time.sleep(2)
                live.update(_picture(root, name), refresh=True)
        except KeyboardInterrupt:
            return


def _look(root: Path, name: str) -> tuple[list[TrialRecord], dict[str, Standing]]:
    records: list[TrialRecord] = StudyFolder(root, name).trials()
    pool = Pool(root)
    return records, {record.pretrain_hash: standing_of(pool, record) for record in records}


def _picture(root: Path, name: str) -> Group:
    StudyFolder(root, name).study()  # says what is wrong with the name before anything else
    records, standings = _look(root, name)
    return Group(standings_table(records, standings), counts_line(records, standings))
