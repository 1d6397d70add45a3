"""Loader processes that die, or cannot hand their batches over: one message with the cause, and nothing left behind."""

import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import assert_same_run, small_config, write_images
from torch.utils.data import Dataset

from cnnjepa.data.workers import load_batches
from cnnjepa.errors import ImageError, ProcessLostError, RunError
from cnnjepa.schemas import PretrainConfig, TrialResult
from cnnjepa.training import pretrain as pretrain_module
from cnnjepa.training.pretrain import pretrain
from cnnjepa.training.watcher import Watcher


class Batches(Dataset[Any]):
    """Eight batches of one image; the work is done in the loader process."""

    def __init__(self, work: Callable[[int], Any]) -> None:
        self._work = work

    def __len__(self) -> int:
        return 8

    def __getitems__(self, indices: list[int]) -> Any:
        return self._work(indices[0])


def dies_by(number: int) -> Callable[[int], Any]:
    return lambda index: os.kill(os.getpid(), number)


def needs_files(index: int) -> Any:
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    return torch.zeros(2)


def raises(error: Exception) -> Callable[[int], Any]:
    def work(index: int) -> Any:
        raise error

    return work


def shared_memory_is_full(index: int) -> Any:
    raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2_0>: No space left on device (28)")


@pytest.mark.processes
@pytest.mark.parametrize(
    ("work", "message"),
    [
        (dies_by(signal.SIGKILL), "was killed or got no memory, .* lower runtime.workers, .* or set runtime.workers=0"),
        (raises(MemoryError()), "was killed or got no memory, .* set runtime.workers=0"),
        (dies_by(signal.SIGBUS), r"ran out of shared memory \(/dev/shm has [\d,]+ MiB\): .*--shm-size=8g.*workers=0"),
        (shared_memory_is_full, "ran out of shared memory .*--shm-size=8g.* runtime.workers=0"),
        (dies_by(signal.SIGSEGV), "killed by signal 'Segmentation fault': set runtime.workers=0"),
        (lambda index: os._exit(3), "ended with exit code 3: set runtime.workers=0"),
        (lambda index: lambda: None, "cannot be sent to another process .*pickle.*: set runtime.workers=0"),
        (needs_files, r"more open files than this shell allows \(\d+\): .*`ulimit -n 65536`, or set runtime.workers=0"),
    ],
    ids=["killed", "memory", "bus error", "shared memory", "segmentation fault", "exit", "pickle", "files"],
)
def test_the_cause_and_the_remedy_are_named_within_seconds(
    work: Callable[[int], Any], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    begun = time.monotonic()
    with pytest.raises(ProcessLostError, match=message):
        list(load_batches(Batches(work), 1))
    assert time.monotonic() - begun < 9
    assert multiprocessing.active_children() == []
    assert "Traceback" not in capfd.readouterr().err


def test_errors_of_the_data_set_keep_their_kind() -> None:
    with pytest.raises(TypeError, match="not a failure of a process"):
        list(load_batches(Batches(raises(TypeError("not a failure of a process"))), 1))
    for workers in (0, 1):
        with pytest.raises(ImageError, match=r"^cat\.jpg cannot be read$"):
            list(load_batches(Batches(lambda index: ImageError("cat.jpg cannot be read")), workers))


@pytest.mark.processes
def test_a_busy_loader_process_ends_with_the_iteration() -> None:
    def work(index: int) -> int:
        time.sleep(60 * (index > 0))
        return index

    batches = load_batches(Batches(work), 2)
    assert next(batches) == 0
    begun = time.monotonic()
    batches.close()
    assert time.monotonic() - begun < 8
    assert multiprocessing.active_children() == []


def test_too_few_descriptors_are_no_fault_of_an_image(tmp_path: Path) -> None:
    from cnnjepa.data.readers import cannot_read

    lacking = cannot_read("D/cat.jpg", OSError(24, "Too many open files"))
    assert type(lacking) is RunError and "`ulimit -n 65536`" in str(lacking)
    gone = cannot_read("D/cat.jpg", OSError(2, "No such file or directory"))
    assert type(gone) is ImageError and str(gone) == "D/cat.jpg cannot be read (No such file or directory)"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_images(folder, train=64, val=24)
    return folder


def loading(images: Path) -> PretrainConfig:
    return small_config("workers=1", "resident=never", "train_images=null", "floors=false", data=images)


class KillsALoader(Watcher):
    """After the fifth step."""

    def stepped(self, step: int) -> None:
        if step == 5:
            for process in multiprocessing.active_children():
                process.kill()


@pytest.mark.kills
@pytest.mark.processes
def test_a_run_whose_loader_is_killed_says_so_and_resumes(images: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ProcessLostError, match=r"lower runtime\.workers, .* resumes from its last checkpoint with --resume"
    ):
        pretrain(loading(images), tmp_path / "run", watcher=KillsALoader())
    failed = TrialResult.model_validate_json((tmp_path / "run" / "result.json").read_bytes())
    assert failed.status == "failed" and failed.error and "a loader process was killed" in failed.error
    pretrain(loading(images), tmp_path / "run", resume=True)
    pretrain(loading(images), tmp_path / "undisturbed")
    assert_same_run(tmp_path / "run", tmp_path / "undisturbed")


@pytest.mark.processes
def test_an_error_in_mid_training_leaves_no_loader_process(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise KeyError("a mistake")

    monkeypatch.setattr(pretrain_module, "train_step", broken)
    begun = time.monotonic()
    with pytest.raises(KeyError) as caught:
        pretrain(loading(images), tmp_path / "run")
    assert caught.traceback  # it keeps the loop's frames, and what they hold, alive
    assert time.monotonic() - begun < 15
    assert multiprocessing.active_children() == []
    failed = TrialResult.model_validate_json((tmp_path / "run" / "result.json").read_bytes())
    assert (failed.status, failed.error) == ("failed", "KeyError: 'a mistake'")


def test_memory_that_runs_out_is_recorded_with_the_settings_that_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1.00 MiB"
        )

    monkeypatch.setattr(pretrain_module, "train_step", full)
    with pytest.raises(RunError) as caught:
        pretrain(small_config(), tmp_path / "run")
    assert str(caught.value) == (
        "the GPU ran out of memory (requested: 2.00 GiB, total capacity of 79.10 GiB): raise runtime.accumulation "
        "(now 1; it must divide the batch), set runtime.precision=bf16, or lower runtime.batch_size (now 16 on each "
        "process); these make another run. If other processes use the same memory, end them and resume with --resume"
    )
    failed = TrialResult.model_validate_json((tmp_path / "run" / "result.json").read_bytes())
    assert (failed.status, failed.error) == ("failed", str(caught.value))
