"""Status of studies, printed once or repeatedly."""

import time
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live

from cnnjepa.ablations.pool import Pool, TrialStatus
from cnnjepa.ablations.study_folder import (
    StudyFolder,
    TrialKey,
    TrialRecord,
    refuse_no_studies,
    status_of,
    study_names,
)
from cnnjepa.cli.metric_tables import metrics_of_study
from cnnjepa.cli.study_tables import counts_line, failures, outcome_notes, outcome_table, status_table
from cnnjepa.cli.terminal import is_live, say
from cnnjepa.schemas import ConfigError


def list_studies(console: Console, root: Path) -> None:
    """Print one line per study."""
    refuse_no_studies(root)
    for name in study_names(root):
        try:
            line = counts_line(*_records_and_statuses(root, name))
        except ConfigError as damage:
            line = f"unreadable: {damage}"
        say(console, (name, "bold"), f"  {line}")


def show_study(console: Console, root: Path, name: str) -> None:
    """Print the study's trials and the results so far."""
    console.print(_overview(root, name))
    folder, pool = StudyFolder(root, name), Pool(root)
    records = folder.trials()
    console.line()
    console.print(outcome_table(folder.study(), pool, records))
    if metrics := metrics_of_study(pool, records):
        console.print(metrics)
    for note in outcome_notes(pool, records):
        say(console, note)
    for line in failures(pool, records, {}):
        say(console, *line)


def follow_study(console: Console, root: Path, name: str) -> None:
    """Show the study's trials, updated until interrupted. If the output cannot be redrawn, print one line per
    change."""
    if not is_live(console):
        _follow_in_lines(console, root, name)
        return
    with Live(_overview(root, name), console=console, auto_refresh=False) as live:
        try:
            while True:
                time.sleep(2)
                live.update(_overview(root, name), refresh=True)
        except KeyboardInterrupt:
            return


def _follow_in_lines(console: Console, root: Path, name: str) -> None:
    console.print(_overview(root, name))
    said = counts_line(*_records_and_statuses(root, name))
    try:
        while True:
            time.sleep(2)
            now = counts_line(*_records_and_statuses(root, name))
            if now != said:
                say(console, now)
                said = now
    except KeyboardInterrupt:
        return


def _records_and_statuses(root: Path, name: str) -> tuple[list[TrialRecord], dict[TrialKey, TrialStatus]]:
    records: list[TrialRecord] = StudyFolder(root, name).trials()
    pool = Pool(root)
    return records, {record.key: status_of(pool, record) for record in records}


def _overview(root: Path, name: str) -> Group:
    StudyFolder(root, name).study()  # reports a wrong name before anything else
    records, statuses = _records_and_statuses(root, name)
    return Group(status_table(records, statuses), counts_line(records, statuses))
