"""The driver of a study: it reuses finished trials, resumes those that were begun, and runs no trial twice."""

import contextlib
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from cnnjepa.ablations.estimate import training_of
from cnnjepa.ablations.pool import Pool
from cnnjepa.ablations.study_folder import StudyFolder, TrialKey, TrialRecord, status_of
from cnnjepa.ablations.trial_runner import Outcome
from cnnjepa.errors import InUseError

# Seconds between checks of trials that another driver is running.
_LOOK_AGAIN = 2.0


OnOutcome = Callable[[TrialRecord, Outcome], None]


class Executor(Protocol):
    """An object that runs trials."""

    def run(
        self, records: list[TrialRecord], stop_file: Path, stopping: Callable[[], bool], on_outcome: OnOutcome
    ) -> None:
        """Run the trials; see LocalExecutor.run."""


def distinct(records: list[TrialRecord]) -> list[TrialRecord]:
    """Return the first record of every trial. Arms with the same config share one trial."""
    return list({record.key: record for record in reversed(records)}.values())[::-1]


def once_trained(records: list[TrialRecord]) -> list[TrialRecord]:
    """Return the first record of every training. Trials that differ only in their probes use the same run folder, one
    after another: once the first is done, the second has nothing to train."""
    return list({record.pretrain_hash: record for record in reversed(records)}.values())[::-1]


def trained(pool: Pool, records: list[TrialRecord]) -> set[str]:
    """Return the trainings that are done, as `estimate.training_of` names them. Only the probes of their trials remain
    to be run."""
    return {
        training_of(record.config)
        for record in records
        if pool.folder(record.pretrain_hash).judged(record.pretrain_hash)
    }


def unfinished(pool: Pool, records: list[TrialRecord], retry_failed: bool) -> list[TrialRecord]:
    """Return the distinct trials that remain to be run, here or elsewhere."""
    left = []
    for record in distinct(records):
        state = status_of(pool, record).state
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
    on_outcome: OnOutcome = lambda record, outcome: None,
) -> dict[TrialKey, Outcome]:
    """Run the unfinished trials and return the outcome of every trial that was tried.

    The executor is made only when there is a trial to run. `make_executor` gets an exit stack for the resources that
    the executor needs while it works. The function waits for trials that another driver runs, and takes them over when
    that driver gives them up.
    """
    outcomes: dict[TrialKey, Outcome] = {}
    left = unfinished(pool, records, retry_failed)
    if not left:
        return outcomes
    stop_file = folder.path / f"stop-{uuid.uuid4().hex}"
    executor: Executor | None = None

    def hear(record: TrialRecord, outcome: Outcome) -> None:
        outcomes[record.key] = outcome
        on_outcome(record, outcome)

    with contextlib.ExitStack() as until_done:
        until_done.callback(stop_file.unlink, missing_ok=True)
        while left and not stopping():
            free = once_trained([record for record in left if _is_free(pool, record)])
            if free:
                for record in free:
                    _forget_failure(pool, record)
                executor = executor or make_executor(until_done)
                executor.run(free, stop_file, stopping, hear)
            else:
                _pause(stopping)
            over = {key for key, outcome in outcomes.items() if outcome.status != "busy"}
            left = [r for r in unfinished(pool, left, retry_failed) if r.key not in over]
    return outcomes


def _is_free(pool: Pool, record: TrialRecord) -> bool:
    return status_of(pool, record).state != "running" and not pool.is_claimed(record.pretrain_hash)


def _forget_failure(pool: Pool, record: TrialRecord) -> None:
    """Remove the failed or damaged result of a trial that will be tried again, so that it does not count as failed."""
    if status_of(pool, record).state not in ("failed", "unreadable"):
        return
    folder = pool.folder(record.pretrain_hash)
    with contextlib.suppress(InUseError), folder.locked():  # in use: another driver already tries it again
        folder.forget_failure(record.probe_hash)


def _pause(stopping: Callable[[], bool]) -> None:
    until = time.monotonic() + _LOOK_AGAIN
    while time.monotonic() < until and not stopping():
        time.sleep(0.1)
