"""The variable part of a run, and its conversion to a checkpoint."""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from cnnjepa.errors import RunError
from cnnjepa.measuring.cost import MethodCost
from cnnjepa.methods import Method
from cnnjepa.storage.atomic_files import keep_as
from cnnjepa.training.checkpoint import FORMAT, Checkpoint, write_checkpoint
from cnnjepa.training.resolve import Identity


@dataclass
class RunState:
    """State of the run between two steps."""

    method: Method
    optimizer: torch.optim.Optimizer
    cost: MethodCost
    identity: Identity
    checkpoints: Path
    started: str
    step: int = 0
    """Number of optimiser steps done."""
    skipped: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    """Damaged images that were repaired while reading."""
    best: tuple[float, int] | None = None
    """(selection figure, step) of the best probe."""
    saved_step: int | None = None
    """Step of `last.pt`."""
    peak_memory: int | None = None
    """Peak memory of training over all sessions, in bytes. None before it is first read."""
    continued_epochs: int | None = None
    """Number of epochs of the run that this run continues; None if it continues none."""
    _window: list[Tensor | float] = field(default_factory=list)
    _seconds: float = 0.0
    _clock: float | None = None

    def start_clock(self) -> None:
        """Start counting training time."""
        self._clock = time.perf_counter()

    def stop_clock(self) -> None:
        """Stop counting training time (before a probe, for example)."""
        self._seconds, self._clock = self.train_seconds, None

    @property
    def train_seconds(self) -> float:
        """Training time over all sessions of the run, in seconds."""
        return self._seconds + (0.0 if self._clock is None else time.perf_counter() - self._clock)

    def saw_memory(self, peak: int) -> None:
        """Record the peak memory of this session's training so far, in bytes."""
        self.peak_memory = max(peak, self.peak_memory or 0)

    def count(self, loss: Tensor, skipped: list[str], repaired: list[str]) -> None:
        """Count a completed step. The loss stays on the device until `losses` is called."""
        self.step += 1
        self._window.append(loss)
        self.skipped += [name for name in skipped if name not in self.skipped]
        self.repaired += [name for name in repaired if name not in self.repaired]

    def losses(self) -> list[float]:
        """Return the losses of the steps since the last logged line. Raises RunError at the first that is not
        finite."""
        on_device = [loss for loss in self._window if isinstance(loss, Tensor)]
        if on_device:
            known = [loss for loss in self._window if not isinstance(loss, Tensor)]
            self._window = [*known, *torch.stack(on_device).tolist()]
        values = [float(loss) for loss in self._window]
        for place, value in enumerate(values):
            if not math.isfinite(value):
                self._fail(f"the loss is {value} at step {self.step - len(values) + place + 1}")
        return values

    def new_window(self) -> None:
        """Start a new interval after a line was logged."""
        self._window = []

    def _refuse_broken_weights(self) -> None:
        """Raise RunError for weights that are not finite. A finite loss can have gradients that are not finite, and
        weights damaged by them must not replace a good checkpoint."""
        sums = torch._foreach_norm([p.detach() for p in self.method.parameters()])
        if not torch.stack(sums).isfinite().all():
            self._fail(f"the weights are no longer finite after step {self.step}")

    def _fail(self, what: str) -> None:
        last = self.checkpoints / "last.pt"
        good = (
            f"the last good checkpoint is {last} (step {self.saved_step})" if self.saved_step else "no checkpoint yet"
        )
        raise RunError(
            f"{what}; {good}. A lower optimizer.lr, longer schedule.warmup_epochs or "
            "optimizer.clip_norm usually helps; these make another run (another --out)."
        )

    def save(self) -> None:
        """Write `last.pt`, and `best.pt` if this step is the best so far."""
        window = self.losses()
        self._refuse_broken_weights()
        state: Checkpoint = {
            "format": FORMAT,
            "pretrain_hash": self.identity.pretrain_hash,
            "settings": self.identity.settings,
            "step": self.step,
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "window": window,
            "skipped": self.skipped,
            "best": list(self.best) if self.best else [],
            "train_seconds": self.train_seconds,
            "started": self.started,
        }
        if self.repaired:
            state["repaired"] = self.repaired
        if self.peak_memory is not None:
            state["peak_memory_bytes"] = self.peak_memory
        if self.continued_epochs is not None:
            state["continued_epochs"] = self.continued_epochs
        write_checkpoint(self.checkpoints, state)
        self.saved_step = self.step
        self.keep_best()

    def keep_best(self) -> None:
        """Link `last.pt` as `best.pt` as well, if this step is the best one. Also called after a resume, because a
        crash may have occurred between the two."""
        if self.best and self.best[1] == self.step == self.saved_step:
            keep_as(self.checkpoints / "last.pt", "best.pt")

    def restore(self, state: Checkpoint) -> None:
        """Restore the state from a checkpoint."""
        self._take_over(state)
        self.saved_step = self.step
        self._window = list(state["window"])
        self.best = (state["best"][0], int(state["best"][1])) if state["best"] else None
        self.started = str(state["started"])
        self.continued_epochs = state.get("continued_epochs")

    def continue_from(self, state: Checkpoint) -> None:
        """Begin where another run ended: with its weights, optimiser state, step and training time. No checkpoint of
        this run exists yet, and the best probe so far is that of the other run."""
        self._take_over(state)
        self.continued_epochs = int(state["settings"]["runtime"]["epochs"])

    def _take_over(self, state: Checkpoint) -> None:
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        _lay_as_parameters(self.optimizer)
        self.step = int(state["step"])
        self.skipped = list(state["skipped"])
        self.repaired = list(state.get("repaired", ()))
        self._seconds = float(state["train_seconds"])
        self.peak_memory = state.get("peak_memory_bytes")


def _lay_as_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Store moments in the memory order of their parameters. torch's fused AdamW on CPUs reads memory in order and
    ignores strides, so moments saved in another order would be applied to other weights."""
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                moments[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
