"""Small runs for tests, in processes that can be killed, and what two equal runs must share.

Processes come from a fork server that has torch loaded, so that starting one costs a tenth of a second.
"""

import contextlib
import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cnnjepa.schemas import PretrainConfig, TrialResult, load_config

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "cnnjepa.training.pretrain",
        "cnnjepa.cli.app",
        "cnnjepa.cli.study_run",
        "cnnjepa.data.hdf5",
        "torch.utils.tensorboard",
        "matplotlib.figure",
    ]
)

VOLATILE = ("images_per_s", "seconds")


def small_config(*overrides: str, data: Path | None = None) -> PretrainConfig:
    """Two to three seconds of training with everything switched on."""
    settings = [
        "train_images=64", "val_images=48", "runtime.batch_size=16", "epochs=3", "checkpoint_every_steps=2",
        "log_every_steps=4", "probe.every_epochs=1", "linear_epochs=2", "linear_batch_size=32", "held_out_ks=[5]",
        "held_out_lrs=[0.01]", "device=cpu",
    ]  # fmt: skip
    if data:
        settings[:2] = ["train_images=64", "image_size=32"]
    return load_config("smoke", overrides=[*settings, *overrides], data=data)


def lasting_trace(run: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]], dict[str, Any]]:
    """(weights, logged lines, result) without what differs between equal runs."""
    state = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        for name in VOLATILE:
            line.pop(name, None)
    result = TrialResult.model_validate_json((run / "result.json").read_bytes())
    return state["method"], lines, result.lasting()


def assert_same_run(run: Path, expected: Path) -> None:
    """Bitwise the same weights, logged losses and result."""
    weights, lines, result = lasting_trace(run)
    expected_weights, expected_lines, expected_result = lasting_trace(expected)
    assert weights.keys() == expected_weights.keys()
    assert [name for name in weights if not torch.equal(weights[name], expected_weights[name])] == []
    assert lines == expected_lines
    assert result == expected_result


def in_process(work: Callable[..., None], *arguments: Any, timeout: float = 120) -> int:
    """Runs `work` in a fresh process; gives its exit code (negative: the signal that killed it)."""
    process = SERVER.Process(target=work, args=arguments)
    process.start()
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        raise AssertionError(f"{work.__name__} did not end within {timeout} s")
    return process.exitcode


def train_alone(config: PretrainConfig, run: Path, resume: bool = False) -> None:
    """The whole run, in this process."""
    from cnnjepa.training.pretrain import pretrain

    torch.set_num_threads(1)
    pretrain(config, run, resume=resume)


def train_until(config: PretrainConfig, run: Path, step: int) -> None:
    """Begins the run, in this process, and stops it with a checkpoint after this step."""
    from cnnjepa.errors import Stopped
    from cnnjepa.training.pretrain import pretrain
    from cnnjepa.training.watcher import Watcher

    class Steps(Watcher):
        done = 0

        def stepped(self, step: int) -> None:
            self.done = step

    watcher = Steps()
    with contextlib.suppress(Stopped):
        pretrain(config, run, watcher=watcher, stop_asked=lambda: "enough" if watcher.done >= step else None)
        raise AssertionError(f"the run ended before step {step}")
    assert watcher.done == step


def train_and_die(config: PretrainConfig, run: Path, at_event: int | None, tally: Path | None) -> None:
    """Resumes `run`, and is killed (SIGKILL) at the `at_event`-th event; None: counts events into `tally`.

    Events are the moments around which a crash can tear something: a step, a line of metrics (torn in half), a
    sync, a rename, a link, a piece of a probe.
    """
    torch.set_num_threads(1)
    from cnnjepa.probes import assessment, evaluate
    from cnnjepa.storage import atomic_files, journal
    from cnnjepa.training import pretrain

    seen: list[str] = []

    def event(name: str, before_death: Callable[[], None] = lambda: None) -> None:
        seen.append(name)
        if len(seen) == at_event:
            before_death()
            os.kill(os.getpid(), signal.SIGKILL)

    def around(module: Any, name: str) -> None:
        original = getattr(module, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            event(name)
            result = original(*args, **kwargs)
            event(f"{name} done")
            return result

        setattr(module, name, watched)

    for module, name in (
        (pretrain, "train_step"), (atomic_files.os, "fsync"), (atomic_files.os, "replace"), (atomic_files.os, "link"),
        (evaluate, "linear_curve"), (assessment, "extract"),
    ):  # fmt: skip
        around(module, name)
    write = journal.Journal.write

    def torn_write(self: Any, kind: str, step: int, values: dict[str, Any]) -> None:
        def half() -> None:
            self._file.write(b'{"kind": "train", "st')
            self._file.flush()

        event("metrics line", half)
        write(self, kind, step, values)

    journal.Journal.write = torn_write  # type: ignore[method-assign]
    pretrain.pretrain(config, run, resume=True)
    if tally:
        tally.write_text(json.dumps(seen))


def write_images(folder: Path, train: int = 96, val: int = 48) -> None:
    """Synthetic images as PNG files in ImageFolder layout."""
    from torchvision.io import write_png

    from cnnjepa.data.synthetic import CLASS_NAMES, render

    for split, count in (("train", train), ("val", val)):
        images, labels = render(split, count, 36)  # type: ignore[arg-type]
        for i in range(count):
            path = folder / split / CLASS_NAMES[int(labels[i])].replace("/", "-") / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(images[i], str(path))
