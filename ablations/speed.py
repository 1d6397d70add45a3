"""Speed of a training step on this machine, measured before a study to estimate its time."""

import multiprocessing
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

from cnnjepa import signals
from cnnjepa.errors import RunError
from cnnjepa.measuring.doctor import training_rate
from cnnjepa.schemas import PretrainConfig

# Images of a calibration step on a CPU, where a full batch of a large network would take a minute.
_CPU_BATCH = 16


def calibrate(config: PretrainConfig, device_type: str, threads: int, side_by_side: int) -> float:
    """Return the images per second of a training step, measured over a few steps on random pixels without data loading.
    On CPUs, `side_by_side` measurements run at the same time, as many as trials will run here; on a GPU, one runs.

    On a GPU the steps run in a separate process. A process that has used a GPU holds some of its memory until it ends,
    and a study's driver ends last. Raises RunError when the steps cannot run (for example, out of memory).
    """
    if device_type == "cuda":
        return float(in_own_process(_rate_on_gpu, config))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    batch = min(config.runtime.batch_size, _CPU_BATCH)
    try:
        with ThreadPoolExecutor(side_by_side) as pool:
            rates = pool.map(lambda _: _rate(config, "cpu", batch), range(side_by_side))
            return statistics.mean(rates)
    finally:
        torch.set_num_threads(before)


def in_own_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of `work` in a new process, which has ended by then. Its errors are raised here; RunError when
    the process dies or runs out of GPU memory."""
    context = multiprocessing.get_context("spawn")  # a forked process cannot use a GPU that its parent has initialised
    try:
        with ProcessPoolExecutor(1, context) as pool:
            with signals.sheltered():
                measured = pool.submit(work, *arguments)
            return measured.result()
    except (BrokenProcessPool, torch.OutOfMemoryError) as error:
        raise RunError(str(error).splitlines()[0]) from None


def _rate_on_gpu(config: PretrainConfig) -> float:
    return _rate(config, "cuda", config.runtime.batch_size)


def _rate(config: PretrainConfig, device_type: str, batch: int) -> float:
    runtime = config.runtime.model_copy(update={"accumulation": 1, "batch_size": batch})
    return training_rate(config.model_copy(update={"runtime": runtime}), torch.device(device_type))
