"""The run folder: who may write in it, and what it says about the run."""

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, BinaryIO

import yaml
from pydantic import ValidationError

from cnnjepa.errors import RunError
from cnnjepa.schemas import ConfigError, PretrainConfig, TrialResult
from cnnjepa.training.files import write_atomically
from cnnjepa.training.locks import holder, locked


class RunFolder:
    """`config.yaml`, `environment.json` (of the last session; `sessions.jsonl` has all), `metrics.jsonl`,
    `tensorboard/`, `checkpoints/`, `result.json`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"

    @property
    def begun(self) -> bool:
        """Whether it holds a run."""
        return (self.path / "config.yaml").is_file()

    def refuse_unless_free(self, resume: bool) -> None:
        """Raises ConfigError when the folder holds another run, or other things, and is not to be resumed."""
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"--out {self.path} is a file; give a folder")
        if self.begun and not resume:
            done = "a finished run" if (self.path / "result.json").is_file() else "a run"
            raise ConfigError(f"--out {self.path} holds {done}; continue it with --resume, or give another --out")
        # `.lock` is the first thing a run writes: with it, a run died here before its config was written.
        ours = self.begun or (self.path / ".lock").is_file()
        strangers = [p.name for p in self.path.glob("*")]
        if strangers and not ours:
            raise ConfigError(
                f"--out {self.path} is not empty and not a run folder (it holds {', '.join(sorted(strangers)[:5])}); "
                "give another --out"
            )

    def locked(self, patience: float = 1.0) -> contextlib.AbstractContextManager[None]:
        """One process trains here at a time; see `locks.locked`."""
        return locked(self.path, patience)

    def holder(self) -> str | None:
        """Who trains here at the moment; None when nobody does."""
        return holder(self.path)

    @property
    def _sessions(self) -> Path:
        return self.path / "sessions.jsonl"

    def begin(self, config: PretrainConfig, environment: dict[str, Any], step: int) -> None:
        """Writes what the run is before anything else, and a line about this session, which goes on after `step`."""
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        for left_over in [*self.path.glob("*.tmp"), *self.checkpoints.glob("*.tmp")]:
            left_over.unlink()  # written aside by a process that was killed; the lock says that none is alive
        for left_over in self.path.glob("features-*"):
            shutil.rmtree(left_over)
        write_atomically(self.path / "environment.json", json.dumps(environment, indent=2).encode())
        write_atomically(self.path / "config.yaml", config_yaml(config).encode())
        with open(self._sessions, "a+b") as sessions:
            cut_off = (
                sessions.tell() and _last_byte(sessions) != b"\n"
            )  # by a crash; this line shall not be glued to it
            line = json.dumps({"first_step": step, "process": os.getpid(), **environment})
            sessions.write(("\n" * bool(cut_off) + line + "\n").encode())

    def trained_at(self, steps: int) -> str:
        """The program's commits that made this run's `steps` steps, in order: sessions that made none, such as one that
        only probed, are left out, and so are steps that were made again. Empty where the sessions are not known."""
        sessions: list[tuple[int, str]] = []
        with contextlib.suppress(OSError):
            for line in self._sessions.read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):  # a line that a crash cut off
                    session = json.loads(line)
                    sessions.append((int(session["first_step"]), str(session["commit"])))
        # What a session made counts up to where any later one began, which may have gone back to an older checkpoint.
        commits, end = list[str](), steps
        for first, commit in reversed(sessions):
            if end > first:
                commits.append(commit)
            end = min(end, first)
        return ", ".join(dict.fromkeys(reversed(commits)))

    def forget_failure(self) -> None:
        """A run that goes on has not failed."""
        done = self.read_result()
        if done and done.status == "failed":
            (self.path / "result.json").unlink()

    def write_result(self, result: TrialResult) -> None:
        """Atomically, as the last thing of a run. A result of other probe settings is kept in `results/`, so that two
        studies that probe one run differently do not undo each other."""
        try:
            before = self.read_result()
        except RunError:  # a damaged one is replaced
            before = None
        if before and before.status != "failed" and before.probe_hash != result.probe_hash:
            self._kept(before.probe_hash).parent.mkdir(exist_ok=True)
            write_atomically(self._kept(before.probe_hash), before.model_dump_json(indent=2).encode())
        self._kept(result.probe_hash).unlink(missing_ok=True)  # a newer one replaces it
        write_atomically(self.path / "result.json", result.model_dump_json(indent=2).encode())

    def read_result(self, probe_hash: str | None = None) -> TrialResult | None:
        """The result of these probe settings if there is one, else the last; None when there is none yet. Raises
        RunError when it cannot be read."""
        if probe_hash is not None:
            kept = _read(self._kept(probe_hash))
            if kept:
                return kept
        return _read(self.path / "result.json")

    def _kept(self, probe_hash: str) -> Path:
        return self.path / "results" / f"{probe_hash}.json"


def _last_byte(file: BinaryIO) -> bytes:
    file.seek(-1, os.SEEK_END)
    return file.read(1)


def _read(path: Path) -> TrialResult | None:
    if not path.is_file():
        return None
    try:
        return TrialResult.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise RunError(f"{path} cannot be read ({error.error_count()} fields are not as expected)") from None


def config_yaml(config: PretrainConfig) -> str:
    """The config as YAML, which `--config` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=100)
