"""The run folder: exclusive access to it, and the files that describe the run."""

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import ValidationError

from cnnjepa.errors import RunError
from cnnjepa.schemas import ConfigError, PretrainConfig, TrialResult
from cnnjepa.schemas.yaml_text import write_yaml
from cnnjepa.storage.atomic_files import write_atomically
from cnnjepa.storage.locks import holder, locked


class RunFolder:
    """Files: `config.yaml`, `environment.json` (of the last session that trained; `sessions.jsonl` has all),
    `metrics.jsonl`, `tensorboard/`, `checkpoints/`, `result.json`, and `results/<probe_hash>.json` for further probe
    settings."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"

    @property
    def begun(self) -> bool:
        """Return whether the folder holds a run."""
        return (self.path / "config.yaml").is_file()

    @property
    def has_checkpoint(self) -> bool:
        """Return whether a run can resume from a checkpoint of this folder."""
        return any((self.checkpoints / name).is_file() for name in ("last.pt", "previous.pt"))

    def refuse_unless_free(self, resume: bool) -> None:
        """Raise ConfigError if the folder holds another run or other files, unless it is to be resumed."""
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"--out {self.path} is a file; give a folder")
        if self.begun and not resume:
            done = "a finished run" if (self.path / "result.json").is_file() else "a run"
            with contextlib.suppress(RunError):  # a damaged result
                if (result := self.read_result()) and result.status == "failed":
                    done = "a run that failed"
            raise ConfigError(f"--out {self.path} holds {done}; continue it with --resume, or give another --out")
        # A run writes `.lock` first. If it is present, a run died here before its config was written.
        ours = self.begun or (self.path / ".lock").is_file()
        strangers = [p.name for p in self.path.glob("*")]
        if strangers and not ours:
            raise ConfigError(
                f"--out {self.path} is not empty and not a run folder (it holds {', '.join(sorted(strangers)[:5])}); "
                "give another --out"
            )

    def locked(self, patience: float = 1.0) -> contextlib.AbstractContextManager[None]:
        """Allow only one process at a time to train here; see `locks.locked`."""
        return locked(self.path, patience)

    def holder(self) -> str | None:
        """Return the process that trains here at the moment; None if there is none."""
        return holder(self.path)

    @property
    def _sessions(self) -> Path:
        return self.path / "sessions.jsonl"

    def begin(
        self, config: PretrainConfig, environment: dict[str, Any], step: int, *, probes_only: bool = False
    ) -> None:
        """Write the description of the run before anything else, and a line about this session, which continues after
        `step`. A session that only adds probes does not change the config and the environment of the training."""
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        for left_over in [*self.path.glob("*.tmp"), *self.checkpoints.glob("*.tmp")]:
            left_over.unlink()  # temporary file of a killed process; the lock guarantees that none is alive
        for left_over in self.path.glob("features-*"):
            shutil.rmtree(left_over)
        if not probes_only:
            write_atomically(self.path / "environment.json", json.dumps(environment, indent=2).encode())
            write_atomically(self.path / "config.yaml", config_yaml(config).encode())
        with open(self._sessions, "a+b") as sessions:
            cut_off = (
                sessions.tell() and _last_byte(sessions) != b"\n"
            )  # by a crash; the new line must not be appended to it
            line = json.dumps({"first_step": step, "process": os.getpid(), **environment})
            sessions.write(("\n" * bool(cut_off) + line + "\n").encode())

    def judged(self, pretrain_hash: str) -> bool:
        """Return whether `result.json` holds figures of the run with this hash."""
        with contextlib.suppress(RunError):
            first = _read(self._first)
            return first is not None and first.has_figures and first.pretrain_hash == pretrain_hash
        return False

    def trained_by(self, steps: int) -> list[dict[str, Any]]:
        """Return the sessions that performed this run's `steps` steps, in order: each line of `sessions.jsonl` that has
        the fields of an environment and `first_step`. Sessions without steps, such as one that only probed, are left
        out, and so are steps that were repeated later. The list is empty if the sessions are not known."""
        sessions: list[dict[str, Any]] = []
        with contextlib.suppress(OSError):
            for line in self._sessions.read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):  # a line that a crash cut off
                    session = json.loads(line)
                    sessions.append({**session, "first_step": int(session["first_step"]), "commit": session["commit"]})
        # The steps of a session count up to the first step of any later session, which may have resumed from an older
        # checkpoint.
        made, end = list[dict[str, Any]](), steps
        for session in reversed(sessions):
            if end > session["first_step"]:
                made.append(session)
            end = min(end, session["first_step"])
        return made[::-1]

    def trained_at(self, steps: int) -> str:
        """Return the program's commits that performed this run's `steps` steps, in order; see `trained_by`."""
        return ", ".join(dict.fromkeys(str(session["commit"]) for session in self.trained_by(steps)))

    def forget_failure(self, probe_hash: str) -> None:
        """Remove the recorded failure of these probe settings before they are tried again. A damaged result counts as a
        failure."""
        for path in (self._added(probe_hash), self._first):
            try:
                result = _read(path)
                failed = result is not None and result.status == "failed" and result.probe_hash == probe_hash
            except RunError:
                failed = True
            if failed:
                path.unlink(missing_ok=True)

    def write_result(self, result: TrialResult) -> Path:
        """Write a result atomically, as the last action of a run, and return its file.

        Results are added. `result.json` holds the figures with which the run ended; those of other probe settings go to
        `results/<probe_hash>.json`. A failure never replaces figures. Raises RunError if writing to the disk fails.
        """
        with contextlib.suppress(RunError):  # a damaged result is replaced
            there = self.read_result(result.probe_hash)
            if there and result.status == "failed" and there.has_figures and _same_run(there, result):
                return self.file_of(result.probe_hash)
        path = self._place_for(result)
        write_atomically(path, result.model_dump_json(indent=2).encode())
        if path == self._first:
            self._added(result.probe_hash).unlink(missing_ok=True)
        return path

    def _place_for(self, result: TrialResult) -> Path:
        """Return `result.json`, unless it holds figures of other probe settings. A failure there is replaced by
        figures."""
        try:
            first = _read(self._first)
        except RunError:
            return self._first
        if first is None or not _same_run(first, result) or first.probe_hash == result.probe_hash:
            return self._first
        try:
            self._added("").parent.mkdir(exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make {self._added('').parent} ({error.strerror or error})") from None
        if first.has_figures or not result.has_figures:
            return self._added(result.probe_hash)
        write_atomically(self._added(first.probe_hash), first.model_dump_json(indent=2).encode())
        return self._first

    def read_result(self, probe_hash: str | None = None) -> TrialResult | None:
        """Return the result of these probe settings, by default the one in `result.json`; None if there is none. Raises
        RunError if it cannot be read."""
        if probe_hash is None:
            return _read(self._first)
        result = _read(self._added(probe_hash)) or _read(self._first)
        return result if result and result.probe_hash == probe_hash else None

    def results(self) -> list[TrialResult]:
        """Return all results, that of `result.json` first. Raises RunError if one cannot be read."""
        paths = [self._first, *sorted(self._added("").parent.glob("*.json"))]
        return [result for path in paths if (result := _read(path))]

    def file_of(self, probe_hash: str) -> Path:
        """Return the file that has, or would have, the result of these probe settings."""
        added = self._added(probe_hash)
        return added if added.is_file() else self._first

    @property
    def _first(self) -> Path:
        return self.path / "result.json"

    def _added(self, probe_hash: str) -> Path:
        return self.path / "results" / f"{probe_hash}.json"


def _same_run(one: TrialResult, other: TrialResult) -> bool:
    return one.pretrain_hash == other.pretrain_hash


def _last_byte(file: BinaryIO) -> bytes:
    file.seek(-1, os.SEEK_END)
    return file.read(1)


def _read(path: Path) -> TrialResult | None:
    if not path.is_file():
        return None
    try:
        return TrialResult.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise RunError(f"{path} cannot be read ({error.error_count()} fields are invalid)") from None


def config_yaml(config: PretrainConfig) -> str:
    """Return the config as YAML, which `--config` can read."""
    return write_yaml(config.model_dump(mode="json"))
