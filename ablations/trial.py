"""One trial, in the process that trains it: the same `pretrain()` as everywhere, its outcome written down.

The local executor starts `python -m cnnjepa.ablations.trial_process` (under torchrun for several processes); Ray's
trials call `run_trial` in their actors.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO

from cnnjepa import launcher
from cnnjepa.ablations.study_folder import TrialRecord
from cnnjepa.errors import InUseError, RunError, Stopped
from cnnjepa.schemas import ConfigError, TrialResult
from cnnjepa.telling import open_log
from cnnjepa.training.conclude import encoder_name, now
from cnnjepa.training.pretrain import pretrain
from cnnjepa.training.run_folder import RunFolder
from cnnjepa.training.watcher import RunPlan, Watcher

Status = Literal["finished", "collapsed", "failed", "stopped", "busy", "died"]
"""`stopped`: with a checkpoint, on request; `busy`: another process has it; `died`: its process was killed."""

EXIT_CODES: dict[Status, int] = {"finished": 0, "failed": 1, "collapsed": 3, "busy": 4, "stopped": 75}

# How long a predecessor that was killed may take to let go of the run folder: its loader processes look for their
# parent every 5 s, and Ray ends the workers of a lost node within about as long.
_PATIENCE = 30.0
_TAIL_LINES = 30


class Outcome(NamedTuple):
    """How an attempt at a trial ended."""

    status: Status
    detail: str = ""


class _Log(Watcher):
    """Plain lines, one an epoch."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._epoch = out, 0

    def say(self, text: str) -> None:
        print(text, file=self._out, flush=True)

    def started(self, plan: RunPlan) -> None:
        self.say(
            f"{plan.run_dir}: from step {plan.first_step} of {plan.epochs * plan.steps_per_epoch}, on {plan.device}"
        )
        for caution in plan.cautions:
            self.warned(caution)

    def logged(self, kind: str, values: dict[str, Any]) -> None:
        if kind == "probe":
            self.say(f"epoch {values['epoch']}: k-NN {values['knn_top1']:.1f} %, RankMe {values['rankme']:.1f}")
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
    """Trains the trial to its end, from its checkpoint if there is one. What it says is appended to `log`; when
    `stop_file` appears it stops with a checkpoint. A failure is written into the run folder with the log's tail; an
    unexpected error of one process among several is raised, since it may only mean that another was lost."""
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
        except Exception as error:
            known = isinstance(error, RunError | ConfigError)
            text = str(error) if known else f"{type(error).__name__}: {error}"
            said.say(f"failed: {text}")
            if record.world_size > 1 and not known:
                raise  # what a process sees when another is lost; nobody can say yet that the trial has failed
            if record.world_size > 1:
                _note(log).write_text(text, encoding="utf-8")  # the others hold the folder, and wait for this one
            else:
                record_failure(record, run_dir, text, log)
            return Outcome("failed", text)
    return Outcome("collapsed" if result.status == "collapsed" else "finished")


def _appears(file: Path) -> Callable[[], str | None]:
    """Looks for the file at most once a second."""
    looked = 0.0

    def asked() -> str | None:
        nonlocal looked
        if time.monotonic() - looked < 1.0:
            return None
        looked = time.monotonic()
        return "the study was asked to stop" if file.exists() else None

    return asked


def _note(log: Path) -> Path:
    """Where a process of a distributed trial says why it fails."""
    return log.with_suffix(".failed")


def forget_note(log: Path) -> None:
    """Before an attempt at a distributed trial."""
    _note(log).unlink(missing_ok=True)


def recorded_note(record: TrialRecord, run_dir: Path, log: Path) -> str | None:
    """After an attempt at a distributed trial whose processes have ended: why it failed, written down; None when no
    process said so."""
    try:
        text = _note(log).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    record_failure(record, run_dir, text, log)
    return text


def record_failure(record: TrialRecord, run_dir: Path, error: str, log: Path) -> None:
    """Writes the failure into the run folder, with the log's tail."""
    said = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    tail = "\n".join(said.splitlines()[-_TAIL_LINES:])
    config = record.config
    result = TrialResult(
        pretrain_hash=record.pretrain_hash,
        probe_hash=record.probe_hash,
        method=config.method.name,
        encoder=encoder_name(config.encoder),
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
    except (RunError, InUseError) as refusal:  # the disk is full, perhaps: the outcome still says what happened
        print(f"the failure could not be written down: {refusal}", file=sys.stderr)


def main() -> None:
    """Runs the trial that standard arguments name; leaves with the outcome's exit code."""
    parser = argparse.ArgumentParser(prog="python -m cnnjepa.ablations.trial_process")
    for name in ("record", "run_dir", "log", "stop_file"):
        parser.add_argument(name, type=Path)
    asked = parser.parse_args()
    record = TrialRecord.model_validate_json(asked.record.read_text(encoding="utf-8"))
    outcome = run_trial(record, asked.run_dir, asked.log, asked.stop_file)
    sys.exit(EXIT_CODES[outcome.status])
