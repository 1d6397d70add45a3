"""Timing of a config's training step on random pixels."""

import time
from collections.abc import Callable

import torch

from cnnjepa.methods import StepDraw, build_method
from cnnjepa.schemas import PretrainConfig
from cnnjepa.schemas.extent import height_width
from cnnjepa.training.distributed import Processes
from cnnjepa.training.graphed_step import graphed_step
from cnnjepa.training.optimizer import build_optimizer
from cnnjepa.training.step import train_step


class StepTimer:
    """Callable that performs the training step with a given number (inputs, moving average, forward, backward, update)
    and returns its seconds. Loading and augmenting images is not included."""

    def __init__(self, config: PretrainConfig, device: torch.device) -> None:
        self._config, self._device = config, device
        self._method = build_method(config).to(device).train()
        self._method.to(memory_format=torch.channels_last)
        self._optimizer = build_optimizer(self._method, config.optimizer)
        for group in self._optimizer.param_groups:
            group["lr"] = 1e-4
        batch = config.runtime.batch_size
        self._views = tuple(
            torch.rand(batch, config.data.channels, *height_width(view.size), device=device).contiguous(
                memory_format=torch.channels_last
            )
            for view in config.views
        )
        self.graphed = graphed_step(self._method, config, Processes(0, 1, device))
        self._indices, self._labels = torch.arange(batch), torch.arange(batch, device=device) % 2

    def __call__(self, step: int) -> float:
        """Perform step number `step`, which determines its masks, and return its seconds."""
        return seconds(lambda: self.make(step), self._device)

    def make(self, step: int) -> None:
        """Perform step number `step` without waiting for the device."""
        config = self._config
        draw = StepDraw(config.grid, self._indices, 0, step)
        inputs = self._method.inputs(self._views, self._labels, draw)
        if config.method.moving_average is not None:
            self._method.follow(0.99)
        train_step(self._method, self._optimizer, inputs, config, Processes(0, 1, self._device), self.graphed)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds that `work` takes, the device's part included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
