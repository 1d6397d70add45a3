"""Executor that runs trials one after another, each in its own process, so that a crash ends only one trial."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cnnjepa import signals
from cnnjepa.ablations.driver import OnOutcome
from cnnjepa.ablations.pool import Pool
from cnnjepa.ablations.study_folder import StudyFolder, TrialRecord, status_of
from cnnjepa.ablations.trial_runner import (
    ATTEMPTS,
    EXIT_CODES,
    Outcome,
    forget_notes,
    given_up,
    lost_note,
    recorded_note,
)
from cnnjepa.telling import open_log


class LocalExecutor:
    """Executor with `threads` CPU threads per process (None = the framework's choice) and `workers` processes per
    trial."""

    def __init__(self, folder: StudyFolder, pool: Pool, threads: int | None = None, workers: int = 1) -> None:
        self._folder, self._pool, self._threads, self._workers = folder, pool, threads, workers

    def run(
        self, records: list[TrialRecord], stop_file: Path, stopping: Callable[[], bool], on_outcome: OnOutcome
    ) -> None:
        """Try every trial that no other driver has claimed, and call `on_outcome` with each outcome. Once `stopping()`
        is true, the running trial is asked to stop through `stop_file`, and no other is started."""
        for record in records:
            with self._pool.claimed(record.pretrain_hash) as ours:
                outcome = self._attempts(record, stop_file, stopping) if ours else None
            if outcome is not None:
                on_outcome(record, outcome)

    def _attempts(self, record: TrialRecord, stop_file: Path, stopping: Callable[[], bool]) -> Outcome | None:
        """Return the outcome of the last attempt; None if there was no attempt or the study is to stop."""
        outcome = None
        for _ in range(ATTEMPTS):
            if stopping():
                return None
            if status_of(self._pool, record).state not in ("waiting", "begun"):
                return outcome  # another driver runs it or has finished it
            outcome = self._attempt(record, stop_file, stopping)
            if outcome.status not in ("died", "stopped"):
                return outcome
        if outcome is not None and outcome.status == "died":
            run, log = self._pool.folder(record.pretrain_hash).path, self._folder.log(record.key)
            return given_up(record, run, log) or outcome
        return outcome

    def _attempt(self, record: TrialRecord, stop_file: Path, stopping: Callable[[], bool]) -> Outcome:
        log = self._folder.log(record.key)
        with tempfile.TemporaryDirectory() as scratch, open_log(log) as out:
            spec = Path(scratch) / "trial.json"
            spec.write_text(record.model_dump_json(), encoding="utf-8")
            run = self._pool.folder(record.pretrain_hash).path
            forget_notes(log)
            words = [*self._launcher(), "-m", "cnnjepa.ablations.trial_process", spec, run, log, stop_file]
            # In a session of its own, so that Ctrl-C reaches only the driver, which then asks the trial to stop. The
            # process is sheltered from signals that a scheduler sends to every process until it handles them itself.
            with signals.sheltered():
                process = subprocess.Popen(
                    [str(word) for word in words], stdout=out, stderr=out, env=self._environment(),
                    start_new_session=True,
                )  # fmt: skip
            try:
                while process.poll() is None:
                    if stopping():
                        stop_file.touch()
                    time.sleep(0.1)
            finally:
                if process.poll() is None:  # the driver failed or was interrupted a second time
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        return self._outcome(record, process.returncode, stopping())

    def _launcher(self) -> list[str]:
        tied = [sys.executable, "-m", "cnnjepa.ablations.parent_death", str(os.getpid()), sys.executable]
        if self._workers == 1:
            return tied
        return [*tied, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={self._workers}"]

    def _environment(self) -> dict[str, str]:
        threads = {"OMP_NUM_THREADS": str(self._threads)} if self._threads else {}
        return {**os.environ, **threads}

    def _outcome(self, record: TrialRecord, code: int, stopping: bool) -> Outcome:
        """Return the outcome from the trial's files first, because torchrun turns every exit code but 0 into 1."""
        if code == EXIT_CODES["busy"]:
            return Outcome("busy")
        log = self._folder.log(record.key)
        recorded_note(record, self._pool.folder(record.pretrain_hash).path, log)
        status = status_of(self._pool, record)
        if status.state in ("finished", "collapsed", "failed"):
            return Outcome(status.state, status.problem or "")
        if code == EXIT_CODES["stopped"] or stopping:
            return Outcome("stopped")
        if why := lost_note(log):
            return Outcome("died", why)
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return Outcome("died", f"its process ended with {how}; its log is {log}")
