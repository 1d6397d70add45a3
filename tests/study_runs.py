"""Small studies for tests, as a person starts them, with every training step counted."""

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from commands import child
from runs import SERVER

from cnnjepa.schemas import TrialResult

HOOK = Path(__file__).parent / "step_hook"
STEPS = 18  # of one trial: 96 images, batch 16, 3 epochs
CHECKPOINT_EVERY = 4

SMALL = [
    "train_images=96", "val_images=48", "runtime.batch_size=16", "epochs=3", "checkpoint_every_steps=4",
    "log_every_steps=2", "probe.every_epochs=1", "linear_epochs=2", "linear_batch_size=32", "held_out_ks=[5]",
    "held_out_lrs=[0.01]", "device=cpu", "probe.floors=false",
]  # fmt: skip


def small(more: Iterable[str]) -> list[str]:
    """The small settings without those whose field `more` sets itself."""
    own = {_field(word) for word in more if "=" in word}
    return [text for text in SMALL if _field(text) not in own]


def _field(setting: str) -> str:
    return setting.partition("=")[0].rpartition(".")[2]


def words(root: Path, *more: str) -> list[str]:
    """`ablate predictor --depths 1,2` on small settings; options in `more` replace these."""
    flags = [word for text in small(more) for word in ("--set", text)]
    options = {"--depths": "1,2", "--preset": "smoke", "--cpus-per-trial": "1", "--images-per-s": "100"}
    others = [word for pair in options.items() if pair[0] not in more for word in pair]
    return ["ablate", "predictor", *others, *flags, "--root", str(root), *more]


def environment(root: Path, **more: str) -> dict[str, str]:
    """Counts steps into `root/steps`; Ray's own folder is left alone."""
    root.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join([str(HOOK), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return {**os.environ, "PYTHONPATH": path, "STEP_LOG": str(root / "steps"), "OMP_NUM_THREADS": "1", **more}


class Driver:
    """`cnnjepa ARGUMENTS` in a session of its own, forked from a process that has loaded the libraries (see
    `commands`). The trials that it starts are processes as a person's."""

    def __init__(self, arguments: list[str], env: dict[str, str]) -> None:
        descriptor, self._out = tempfile.mkstemp(prefix="driver")
        os.close(descriptor)
        words = (_in_its_own_session, tuple(arguments), str(Path.cwd()), env, self._out, self._out)
        self._process = SERVER.Process(target=child, args=words)
        self._process.start()
        assert self._process.pid
        self.pid = self._process.pid

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def end(self, timeout: float | None) -> tuple[int, str]:
        """(exit code, what it printed); after `timeout` seconds the whole session is killed."""
        self._process.join(timeout)
        late = self._process.exitcode is None
        if late:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.join()
        printed = Path(self._out).read_text(encoding="utf-8")
        os.remove(self._out)
        assert not late, f"not ended after {timeout} s: {printed}"
        assert self._process.exitcode is not None
        return self._process.exitcode, printed


def _in_its_own_session(*words: str) -> None:
    from cnnjepa.cli.main import main

    os.setsid()
    sys.path.insert(0, os.getcwd())
    sys.argv = ["cnnjepa", *words]
    main()


def start(arguments: list[str], env: dict[str, str]) -> Driver:
    """The command line."""
    return Driver(arguments, env)


def finish(driver: Driver, timeout: float = 180) -> tuple[int, str]:
    """(exit code, what it printed)."""
    return driver.end(timeout)


def run(arguments: list[str], env: dict[str, str], timeout: float = 180) -> tuple[int, str]:
    """Starts and finishes."""
    return finish(start(arguments, env), timeout)


def kill(driver: Driver) -> None:
    """SIGKILL to this process alone."""
    driver.send_signal(signal.SIGKILL)
    driver.end(None)


def start_alone(arguments: list[str], env: dict[str, str]) -> subprocess.Popen[str]:
    """The command line in a fresh interpreter, where a test looks at all of its processes."""
    return subprocess.Popen(
        [sys.executable, "-m", "cnnjepa", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=env, start_new_session=True,
    )  # fmt: skip


def steps(root: Path) -> list[tuple[str, ...]]:
    """(process, rank, seed, depth) of every step made."""
    path = root / "steps"
    return [tuple(line.split()) for line in path.read_text().splitlines()] if path.exists() else []


def wait_until(true: Callable[[], bool], seconds: float = 90) -> None:
    """Raises AssertionError when it does not come true."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


def results(root: Path) -> dict[str, dict[str, Any]]:
    """Every trial's result by hash, without what differs between equal runs."""
    return {
        path.parent.name: TrialResult.model_validate_json(path.read_bytes()).lasting()
        for path in (root / "runs" / "by_hash").glob("*/result.json")
    }


def lines_of(root: Path) -> dict[str, list[dict[str, Any]]]:
    """Every trial's metrics.jsonl by hash, without what differs between equal runs."""
    found = {}
    for path in (root / "runs" / "by_hash").glob("*/metrics.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        found[path.parent.name] = [
            {k: v for k, v in line.items() if k not in ("seconds", "images_per_s")} for line in lines
        ]
    return found


def assert_same_study(root: Path, expected: Path, trials: int | None = None) -> None:
    """The same trials with the same results and logged losses; with `trials`, so many of those in `expected`."""
    found, lines = results(root), lines_of(root)
    assert len(found) == (len(results(expected)) if trials is None else trials)
    assert found == {name: result for name, result in results(expected).items() if name in found}
    assert lines.keys() >= found.keys()
    assert lines == {name: made for name, made in lines_of(expected).items() if name in lines}


def repeated(root: Path) -> int:
    """Steps that had to be made again, from the sessions' own records: those after the checkpoint from which the next
    session resumed."""
    again = 0
    for path in (root / "runs" / "by_hash").glob("*/sessions.jsonl"):
        sessions = [json.loads(line) for line in path.read_text().splitlines()]
        made = [s for s in steps(root) if s[1] == "0"]
        for session, following in itertools.pairwise(sessions):
            done = sum(step[0] == str(session["process"]) for step in made)
            lost = session["first_step"] + done - following["first_step"]
            assert 0 <= lost <= CHECKPOINT_EVERY, (session, following, done)
            again += lost
    return again


def processes_with(variable: bytes) -> list[int]:
    """Processes that were started with an environment variable."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if variable in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found
