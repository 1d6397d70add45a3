"""An error on one process of a run ends every process within seconds, with the same reason in result.json."""

import functools
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import SERVER, assert_same_run, small_config
from test_distributed import STEPS, free_port

from cnnjepa.errors import ImageError, RunError
from cnnjepa.schemas import ConfigError, PretrainConfig, TrialResult

pytestmark = [pytest.mark.processes]

TWO = (*STEPS, "runtime.batch_size=16", "floors=false")


def run_rank(config: PretrainConfig, run: Path, rank: int, port: int, prepare: Callable[[int], None]) -> None:
    """Train as one of two; how it ended is written next to the run."""
    from cnnjepa.training.pretrain import pretrain

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    prepare(rank)
    try:
        pretrain(config, run, resume=True)
        ended = ["finished", ""]
    except Exception as error:
        ended = [type(error).__name__, str(error)]
    run.with_name(f"{run.name}-{rank}.json").write_text(json.dumps(ended))


def run_both(run: Path, prepare: Callable[[int], None]) -> tuple[list[list[str] | None], list[int | None], float]:
    """(How each rank ended: kind of error and text, None where it did not come to an end; exit codes; seconds)."""
    port, begun = free_port(), time.monotonic()
    config = small_config(*TWO)
    processes = [SERVER.Process(target=run_rank, args=(config, run, rank, port, prepare)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(90)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    files = [run.with_name(f"{run.name}-{rank}.json") for rank in (0, 1)]
    ended = [json.loads(file.read_text()) if file.exists() else None for file in files]
    for file in files:
        file.unlink(missing_ok=True)
    return ended, codes, time.monotonic() - begun


def recorded(run: Path) -> tuple[str, str | None]:
    result = TrialResult.model_validate_json((run / "result.json").read_bytes())
    return result.status, result.error


def in_step(rank: int, failing: int, work: Callable[[], Any]) -> None:
    """`work` comes before the second step of rank `failing`."""
    from cnnjepa.training import pretrain as module

    original, made = module.train_step, []

    def step(*args: Any) -> Any:
        made.append(1)
        if rank == failing and len(made) == 2:
            work()
        return original(*args)

    module.train_step = step


def raise_(error: Exception) -> Any:
    raise error


def no_memory(rank: int) -> None:
    text = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 1 has a total capacity of 79.10 GiB"
    in_step(rank, 1, lambda: raise_(torch.OutOfMemoryError(text)))


def broken_image(rank: int) -> None:
    in_step(rank, 1, lambda: raise_(ImageError("D/cat.jpg cannot be decoded (cut off)")))


def mistake_on_main(rank: int) -> None:
    in_step(rank, 0, lambda: raise_(KeyError("x")))


def no_memory_in_a_probe(rank: int) -> None:
    from cnnjepa.probes import assessment

    assessment.extract = lambda *_, **__: raise_(OSError(28, "No space left on device"))


def no_device(rank: int) -> None:
    from cnnjepa.training import distributed

    if rank == 1:
        distributed.pick_device = lambda *_: raise_(ConfigError("process 1 has no GPU of its own; there are 1"))


def killed(rank: int) -> None:
    in_step(rank, 1, lambda: os.kill(os.getpid(), signal.SIGKILL))


def nothing(rank: int) -> None:
    pass


MEMORY = "rank 1: the GPU ran out of memory (requested: 2.00 GiB, total capacity of 79.10 GiB): raise runtime.accumul"


@pytest.mark.parametrize(
    ("prepare", "kinds", "text"),
    [
        (no_memory, ["RunError", "RunError"], MEMORY),
        (broken_image, ["ImageError", "ImageError"], "rank 1: D/cat.jpg cannot be decoded (cut off)"),
        (mistake_on_main, ["KeyError", "RunError"], "rank 0: KeyError: 'x'"),
        (no_memory_in_a_probe, ["OSError", "RunError"], "rank 0: OSError: [Errno 28] No space left on device"),
    ],
)
def test_a_failure_of_one_process_ends_all_with_the_same_reason_and_is_recorded(
    prepare: Callable[[int], None], kinds: list[str], text: str, tmp_path: Path
) -> None:
    ended, codes, seconds = run_both(tmp_path / "run", prepare)
    assert codes == [0, 0] and seconds < 30
    assert [how and how[0] for how in ended] == kinds
    for how, kind in zip(ended, kinds, strict=True):
        assert how and (how[1].startswith(text) or kind in ("KeyError", "OSError"))
    status, error = recorded(tmp_path / "run")
    assert status == "failed" and error and error.startswith(text)


def test_a_refusal_on_one_process_at_the_start_reaches_all_and_writes_nothing(tmp_path: Path) -> None:
    ended, codes, seconds = run_both(tmp_path / "run", no_device)
    assert codes == [0, 0] and seconds < 30
    assert ended[0] == ["ConfigError", "rank 1: process 1 has no GPU of its own; there are 1"]
    assert ended[1] == ["ConfigError", "process 1 has no GPU of its own; there are 1"]
    assert not (tmp_path / "run").exists()


@pytest.mark.kills
def test_a_process_that_is_killed_ends_the_other_and_the_run_resumes(tmp_path: Path) -> None:
    ended, codes, seconds = run_both(tmp_path / "run", killed)
    assert codes == [0, -signal.SIGKILL] and seconds < 30
    assert ended[0] and ended[0][0] == "ProcessLostError"
    assert (
        ended[0][1].startswith("rank 0: the connection to another process of the run broke")
        and "--resume" in ended[0][1]
    )
    assert recorded(tmp_path / "run") == ("failed", ended[0][1])
    ended, codes, _ = run_both(tmp_path / "run", nothing)
    assert ended == [["finished", ""], ["finished", ""]]
    run_both(tmp_path / "undisturbed", nothing)
    assert_same_run(tmp_path / "run", tmp_path / "undisturbed")


def blocked(said: Path, rank: int) -> None:
    """Rank 0 as in a collective under NCCL, which nothing interrupts."""
    from cnnjepa.training import failure_watch

    failure_watch._LEAVE_WITHIN = 1.0
    if rank == 0:
        sys.stderr = open(said, "w", encoding="utf-8")  # noqa: SIM115 - open until the process ends
        in_step(rank, 0, lambda: time.sleep(600))
    else:
        in_step(rank, 1, lambda: raise_(RunError("the disk is full")))


def test_a_process_that_is_blocked_in_a_collective_is_ended(tmp_path: Path) -> None:
    ended, codes, seconds = run_both(tmp_path / "run", functools.partial(blocked, tmp_path / "said"))
    assert codes == [1, 0] and seconds < 30
    assert ended == [None, ["RunError", "rank 1: the disk is full"]]
    assert recorded(tmp_path / "run") == ("failed", "rank 1: the disk is full")
    assert (tmp_path / "said").read_text() == "cnnjepa: rank 1: the disk is full (rank 0 was waiting for it)\n"
