"""What a training step of several methods costs, measured in turns on one machine.

Every method lives in a process of its own, so that its peak memory is its own; they step one at a time, one after the
other, round by round, so that a slow minute of the machine falls on all of them.
"""

import multiprocessing
import resource
import statistics
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import NamedTuple

import torch

from cnnjepa.cost import method_cost
from cnnjepa.errors import RunError
from cnnjepa.schemas import PretrainConfig
from cnnjepa.step_timer import StepTimer
from cnnjepa.training.distributed import pick_device


class StepCost(NamedTuple):
    """One method's."""

    seconds: list[float]
    """Of every round's step."""
    flops_per_image: float
    """A step's, forward and backward, at the mean visible share."""
    memory_bytes: int
    """Peak: allocated on the GPU; on a CPU the process's resident set, less what it held before there was a method."""
    images: int
    """A step's."""

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)


def step_costs(
    configs: Mapping[str, PretrainConfig], rounds: int, threads: int, told: Callable[[str], None] = lambda text: None
) -> dict[str, StepCost]:
    """Cost of every config's step: one to warm up, then `rounds`, alternating. Raises RunError when a process dies."""
    context = multiprocessing.get_context("spawn")
    workers: dict[str, tuple[SpawnProcess, Connection]] = {}
    try:
        for name, config in configs.items():
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(config, threads, theirs), daemon=True)
            process.start()
            theirs.close()
            workers[name] = (process, ours)
            told(f"{name}: building and warming up")
            _ask(name, *workers[name], 0)
        times: dict[str, list[float]] = {name: [] for name in configs}
        for number in range(1, rounds + 1):
            told(f"round {number} of {rounds}")
            for name, worker in workers.items():
                times[name].append(_ask(name, *worker, number))
        return {
            name: StepCost(
                times[name],
                method_cost(configs[name]).flops_per_image,
                int(_ask(name, *worker, None)),
                configs[name].runtime.batch_size,
            )
            for name, worker in workers.items()
        }
    finally:
        for process, pipe in workers.values():
            pipe.close()
            process.join(5)
            if process.is_alive():
                process.kill()


def _ask(name: str, process: SpawnProcess, pipe: Connection, step: int | None) -> float:
    try:
        pipe.send(step)
        return float(pipe.recv())
    except (EOFError, BrokenPipeError, ConnectionResetError):
        process.join(5)
        how = f"exit code {process.exitcode}"
        raise RunError(
            f"{name}: its process ended ({how}; -9 is usually lack of memory); try a smaller --batch or "
            "--image-size, or fewer --methods"
        ) from None


def _serve(config: PretrainConfig, threads: int, pipe: Connection) -> None:
    """Steps as asked for, by number; None asks for the peak memory; a closed pipe ends it."""
    torch.set_num_threads(threads)
    device = pick_device(config.runtime.device)
    before = _peak_resident()
    timer = StepTimer(config, device)
    while True:
        try:
            step = pipe.recv()
        except EOFError:
            return
        if step is not None:
            pipe.send(timer(step))
        elif device.type == "cuda":
            pipe.send(torch.cuda.max_memory_allocated(device))
        else:
            pipe.send(_peak_resident() - before)


def _peak_resident() -> int:
    """The largest resident set of this process so far, in bytes. Linux's own figure where there is one, because
    getrusage's also counts what the process was forked from."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
