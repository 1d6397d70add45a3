"""One trial, in the process that trains it, with the same `pretrain()` as everywhere. Its outcome is recorded.

The local executor starts `python -m cnnjepa.ablations.trial_process` (under torchrun for several processes); Ray's
trials call `run_trial` in their actors.
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO

from cnnjepa import launcher
from cnnjepa.ablations.study_folder import TrialRecord
from cnnjepa.clock import now
from cnnjepa.errors import InUseError, ProcessLostError, RunError, Stopped
from cnnjepa.schemas import TrialResult
from cnnjepa.telling import open_log
from cnnjepa.training.distributed import text_of
from cnnjepa.training.failures import RESUMES
from cnnjepa.training.pretrain import pretrain
from cnnjepa.training.run_folder import RunFolder
from cnnjepa.training.watcher import RunPlan, Watcher

Status = Literal["finished", "collapsed", "failed", "stopped", "busy", "died"]
"""`stopped`: on request, with a checkpoint; `busy`: another process uses the run folder; `died`: the trial's process
was killed, or lost a process that it needs (a loader process, another rank)."""

EXIT_CODES: dict[Status, int] = {"finished": 0, "failed": 1, "collapsed": 3, "busy": 4, "died": 5, "stopped": 75}

# How long a killed predecessor may take to release the run folder: its loader processes check for their
# parent every 5 s, and Ray ends the workers of a lost node within about the same time.
_PATIENCE = 30.0
_TAIL_LINES = 30

# Attempts at a trial whose processes die (for example, killed for memory).
ATTEMPTS = 3


class Outcome(NamedTuple):
    """The outcome of an attempt at a trial."""

    status: Status
    detail: str = ""


class _Log(Watcher):
    """Watcher that writes plain lines, one per epoch."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._epoch = out, 0

    def say(self, text: str) -> None:
        print(text, file=self._out, flush=True)

    def started(self, plan: RunPlan) -> None:
        self.say(
            f"{plan.run_dir}: from step {plan.first_step} of {plan.epochs * plan.steps_per_epoch}, on {plan.device}"
        )
        if plan.found:
            self.say(plan.found)
        if plan.start:
            self.say(f"start: {plan.start}")
        for warning in plan.warnings:
            self.warned(warning)

    def logged(self, kind: str, values: dict[str, Any]) -> None:
        if kind == "probe":
            knn = f"k-NN {values['knn_top1']:.1f} %, " if "knn_top1" in values else ""
            loss = f", held-out loss {values['heldout_loss']:.4f}" if "heldout_loss" in values else ""
            self.say(f"epoch {values['epoch']}: {knn}RankMe {values['rankme']:.1f}{loss}")
        elif int(values["epoch"]) > self._epoch:
            self._epoch = int(values["epoch"])
            self.say(f"epoch {self._epoch}: loss {values['loss']:.4f}, {values['images_per_s']:,.0f} images/s")

    def phase(self, text: str) -> None:
        self.say(text)

    def warned(self, text: str) -> None:
        self.say(f"note: {text}")


def run_trial(
    record: TrialRecord, run_dir: Path, log: Path, stop_file: Path, watcher: Watcher | None = None
) -> Outcome:
    """Train the trial to its end, from its checkpoint if there is one. Messages are appended to `log`. When `stop_file`
    appears, training stops with a checkpoint. A failure is written into the run folder with the end of the log. A lost
    process is not recorded as a failure, because the trial can be tried again (see `given_up`)."""
    if record.world_size == 1:
        launcher.alone()
    with open_log(log) as out:
        said = _Log(out)
        said.say(f"--- {now()} {record.label}")
        try:
            result = pretrain(
                record.config,
                run_dir,
                resume=True,
                watcher=watcher or said,
                stop_asked=_appears(stop_file),
                patience=_PATIENCE,
                expected_hash=record.pretrain_hash,
                floors=run_dir.parent.parent / "floors",
            )
        except Stopped as stopped:
            said.say(f"stopped: {stopped}")
            return Outcome("stopped", str(stopped))
        except InUseError as busy:
            said.say(str(busy))
            return Outcome("busy", str(busy))
        except ProcessLostError as lost:
            why = str(lost).removesuffix(RESUMES)
            said.say(f"lost: {why}")
            RunFolder(run_dir).forget_failure(record.probe_hash)
            _note(log, "lost").write_text(why, encoding="utf-8")
            return Outcome("died", why)
        except Exception as error:
            text = text_of(error)
            said.say(f"failed: {text}")
            if record.world_size > 1:  # another process may still hold the folder
                _note(log, "failed").write_text(_recorded(record, run_dir) or text, encoding="utf-8")
            else:
                record_failure(record, run_dir, text, log)
            return Outcome("failed", text)
    return Outcome("collapsed" if result.status == "collapsed" else "finished")


def _appears(file: Path) -> Callable[[], str | None]:
    """Return a function that checks for the file, at most once per second."""
    looked = 0.0

    def asked() -> str | None:
        nonlocal looked
        if time.monotonic() - looked < 1.0:
            return None
        looked = time.monotonic()
        return "the study was asked to stop" if file.exists() else None

    return asked


def _note(log: Path, how: Literal["failed", "lost"]) -> Path:
    """Return the file in which a process records why its distributed trial fails, or which process it lost."""
    return log.with_suffix(f".{how}")


def _recorded(record: TrialRecord, run_dir: Path) -> str | None:
    """Return the reason that the first failing process recorded; it names the rank."""
    with contextlib.suppress(RunError):
        result = RunFolder(run_dir).read_result(record.probe_hash)
        return result.error if result else None
    return None


def forget_notes(log: Path) -> None:
    """Remove the notes of earlier attempts, before an attempt at a trial."""
    _note(log, "failed").unlink(missing_ok=True)
    _note(log, "lost").unlink(missing_ok=True)


def lost_note(log: Path) -> str | None:
    """Return which process was lost, after an attempt at a trial; None if no process recorded it."""
    try:
        return _note(log, "lost").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def given_up(record: TrialRecord, run_dir: Path, log: Path) -> Outcome | None:
    """Record a failure after the last attempt at a trial that lost a process each time. Return None if its own
    processes died without a note, as on a machine that is switched off: the next command tries such a trial again."""
    why = lost_note(log)
    if why is None:
        return None
    text = f"{why}. Tried {ATTEMPTS} times, each from the last checkpoint"
    record_failure(record, run_dir, text, log)
    return Outcome("failed", text)


def recorded_note(record: TrialRecord, run_dir: Path, log: Path) -> str | None:
    """Record why a distributed trial failed, after its processes have ended, and return the reason; None if no process
    noted one."""
    try:
        text = _note(log, "failed").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    record_failure(record, run_dir, text, log)
    return text


def record_failure(record: TrialRecord, run_dir: Path, error: str, log: Path) -> None:
    """Write the failure into the run folder, with the end of the log."""
    said = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    tail = "\n".join(said.splitlines()[-_TAIL_LINES:])
    config = record.config
    result = TrialResult(
        pretrain_hash=record.pretrain_hash,
        probe_hash=record.probe_hash,
        method=config.method.name,
        encoder=config.encoder.short_name,
        dataset=record.dataset,
        seed=record.seed,
        status="failed",
        error=error,
        log_tail=tail,
        finished=now(),
    )
    folder = RunFolder(run_dir)
    try:
        with folder.locked(_PATIENCE):
            folder.write_result(result)
    except (RunError, InUseError) as refusal:  # the disk may be full: the outcome still has the reason
        print(f"the failure could not be recorded: {refusal}", file=sys.stderr)


def main() -> None:
    """Run the trial that the command line names, and exit with the outcome's exit code."""
    parser = argparse.ArgumentParser(prog="python -m cnnjepa.ablations.trial_process")
    for name in ("record", "run_dir", "log", "stop_file"):
        parser.add_argument(name, type=Path)
    asked = parser.parse_args()
    record = TrialRecord.model_validate_json(asked.record.read_text(encoding="utf-8"))
    outcome = run_trial(record, asked.run_dir, asked.log, asked.stop_file)
    sys.exit(EXIT_CODES[outcome.status])
