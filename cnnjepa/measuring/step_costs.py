"""Cost of a training step of several methods on one machine, each compared with the first method.

Each method runs in its own process, so that its peak memory is measured alone. The first method and one other run
interleaved steps: a slow minute of the machine slows both, and only two methods have to fit in memory at once.
"""

import multiprocessing
import resource
import statistics
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import torch

from cnnjepa import signals
from cnnjepa.errors import RunError
from cnnjepa.measuring.cost import method_cost
from cnnjepa.measuring.step_timer import StepTimer
from cnnjepa.schemas import PretrainConfig
from cnnjepa.training.distributed import pick_device


class StepCost(NamedTuple):
    """Cost of one method."""

    seconds: list[float]
    """Seconds of the step in every round."""
    reference_seconds: list[float]
    """Seconds of the first method's step in the same rounds; the first method's own steps for the first method."""
    flops_per_image: float
    """FLOPs of a step per image, forward and backward, at the mean fraction of visible cells."""
    memory_bytes: int
    """Peak memory: allocated on the GPU, or, on a CPU, the process's resident set minus its size before there was a
    method."""
    images: int
    """Images per step."""

    @property
    def median(self) -> float:
        """Median seconds per step."""
        return statistics.median(self.seconds)

    @property
    def median_reference(self) -> float:
        """Median seconds of the first method's step in the same rounds."""
        return statistics.median(self.reference_seconds)


def step_costs(
    configs: Mapping[str, PretrainConfig],
    rounds: int,
    threads: int,
    say: Callable[[str], None] = lambda text: None,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, StepCost]:
    """Measure the step cost of every config: one warm-up step, then `rounds` steps interleaved with those of the first
    config. The first config's seconds are those of all its steps. `tick` is called before every round; it ends the
    measurement by raising. Raises RunError if a process dies."""
    first, *others = configs
    found: dict[str, StepCost] = {}
    with _Worker(first, configs[first], threads) as reference:
        say(f"{first}: building and warming up")
        reference.step(0)
        own = [reference.step(number) for number in range(1, rounds + 1)] if not others else []
        for name in others:
            with _Worker(name, configs[name], threads) as worker:
                say(f"{name}: building and warming up")
                worker.step(0)
                reference.step(0)  # it was idle while the other was built
                times: list[float] = []
                paired: list[float] = []
                for number in range(1, rounds + 1):
                    tick()
                    say(f"{name}: round {number} of {rounds}")
                    paired.append(reference.step(number))
                    times.append(worker.step(number))
                found[name] = _cost(configs[name], times, paired, worker.peak())
                own += paired
        ours = _cost(configs[first], own, own, reference.peak())
    return {first: ours, **found}


def _cost(config: PretrainConfig, seconds: list[float], reference: list[float], peak: int) -> StepCost:
    return StepCost(seconds, reference, method_cost(config).flops_per_image, peak, config.runtime.batch_size)


class _Worker:
    """A process that performs one method's steps on request."""

    def __init__(self, name: str, config: PretrainConfig, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._name = name
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(config, threads, theirs), daemon=True)
        with signals.sheltered():  # a Ctrl-C is handled by this process; a closed pipe ends the other
            self._process.start()
        theirs.close()

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()

    def step(self, number: int) -> float:
        """Perform a step and return its seconds. Raises RunError if the process is gone."""
        return self._ask(number)

    def peak(self) -> int:
        """Return the peak memory in bytes."""
        return int(self._ask(None))

    def _ask(self, step: int | None) -> float:
        try:
            self._pipe.send(step)
            return float(self._pipe.recv())
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self._process.join(5)
            how = f"exit code {self._process.exitcode}"
            raise RunError(
                f"{self._name}: its process ended ({how}; -9 is usually lack of memory); try a smaller --batch or "
                "--image-size"
            ) from None


def _serve(config: PretrainConfig, threads: int, pipe: Connection) -> None:
    """Perform the steps whose numbers arrive. None requests the peak memory; a closed pipe ends the process."""
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
    """Return the largest resident set of this process so far, in bytes. On Linux the kernel's figure for the process is
    read, because getrusage also counts the process from which it was forked."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
