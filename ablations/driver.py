"""Brings a study to its end: what is finished is used again, what was begun goes on, nothing runs twice."""

import contextlib
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from cnnjepa.ablations.pool import Pool
from cnnjepa.ablations.study_folder import StudyFolder, TrialRecord, standing_of
from cnnjepa.ablations.trial import Outcome
from cnnjepa.errors import InUseError, RunError

# Seconds between looks at trials that another driver is running.
_LOOK_AGAIN = 2.0


class Executor(Protocol):
    """Something that runs trials."""

    def run(
        self,
        records: list[TrialRecord],
        stop_file: Path,
        stopping: Callable[[], bool],
        told: Callable[[TrialRecord, Outcome], None],
    ) -> None:
        """See LocalExecutor.run."""


def distinct(records: list[TrialRecord]) -> list[TrialRecord]:
    """The first trial of every hash: arms that are the same config share one."""
    return list({record.pretrain_hash: record for record in reversed(records)}.values())[::-1]


def unfinished(pool: Pool, records: list[TrialRecord], retry_failed: bool) -> list[TrialRecord]:
    """The distinct trials that are still to be run here or elsewhere."""
    left = []
    for record in distinct(records):
        state = standing_of(pool, record).state
        if state in ("waiting", "begun", "running") or (retry_failed and state in ("failed", "unreadable")):
            left.append(record)
    return left


def run_study(
    folder: StudyFolder,
    pool: Pool,
    records: list[TrialRecord],
    make_executor: Callable[[contextlib.ExitStack], Executor],
    stopping: Callable[[], bool],
    retry_failed: bool = False,
    told: Callable[[TrialRecord, Outcome], None] = lambda record, outcome: None,
) -> dict[str, Outcome]:
    """Runs what is unfinished; gives the outcome of every trial that was tried, by hash.

    The executor is made only when something is to be run; what it needs open while it works goes onto the stack that it
    is made with. Trials that another driver runs are waited for, and taken
    over when it gives them up.
    """
    outcomes: dict[str, Outcome] = {}
    left = unfinished(pool, records, retry_failed)
    if not left:
        return outcomes
    stop_file = folder.path / f"stop-{uuid.uuid4().hex}"
    executor: Executor | None = None

    def hear(record: TrialRecord, outcome: Outcome) -> None:
        outcomes[record.pretrain_hash] = outcome
        told(record, outcome)

    with contextlib.ExitStack() as until_done:
        until_done.callback(stop_file.unlink, missing_ok=True)
        while left and not stopping():
            free = [r for r in left if standing_of(pool, r).state != "running"]
            if free:
                for record in free:
                    _forget_failure(pool, record)
                executor = executor or make_executor(until_done)
                executor.run(free, stop_file, stopping, hear)
            else:
                _pause(stopping)
            over = {h for h, outcome in outcomes.items() if outcome.status != "busy"}
            left = [r for r in unfinished(pool, left, False) if r.pretrain_hash not in over]
    return outcomes


def _forget_failure(pool: Pool, record: TrialRecord) -> None:
    """What is to be tried again has not failed. (Only failed and damaged results come here, by `unfinished`.)"""
    if standing_of(pool, record).state not in ("failed", "unreadable"):
        return
    folder = pool.folder(record.pretrain_hash)
    with contextlib.suppress(InUseError), folder.locked():  # in use: another driver tries it again already
        # Not by its standing, which is "running" while it is held here.
        try:
            last = folder.read_result()
            failed = last is not None and last.status == "failed"
        except RunError:
            failed = True
        if failed:
            (folder.path / "result.json").unlink(missing_ok=True)


def _pause(stopping: Callable[[], bool]) -> None:
    until = time.monotonic() + _LOOK_AGAIN
    while time.monotonic() < until and not stopping():
        time.sleep(0.1)
