"""The constant part of a run."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from cnnjepa.data import DataSet
from cnnjepa.data.batches import Order
from cnnjepa.data.held_out import training_set
from cnnjepa.schemas import PretrainConfig
from cnnjepa.training.distributed import Processes
from cnnjepa.training.environment import environment
from cnnjepa.training.resolve import Identity
from cnnjepa.training.run_folder import RunFolder
from cnnjepa.training.schedule import Schedule
from cnnjepa.training.stopping import StopRequest
from cnnjepa.training.watcher import Watcher
from cnnjepa.warm_start.initial_weights import InitialWeights


class Session(NamedTuple):
    """The contribution of this process to a run."""

    processes: Processes
    stop: StopRequest
    watcher: Watcher | None
    """The display of progress; used on process 0 only."""


@dataclass(frozen=True)
class Run:
    """Everything that stays the same during a run."""

    config: PretrainConfig
    """The resolved config."""
    data: DataSet
    identity: Identity
    folder: RunFolder
    processes: Processes
    stop: StopRequest
    watcher: Watcher
    initial: InitialWeights | None
    """Given weights with which the encoder starts; None if they are random."""
    floors: Path | None
    """Folder of floors shared with other runs; None means that the run measures its own."""

    @cached_property
    def training(self) -> DataSet:
        """The images from which the method learns: `data`, without those that a supervised run must not see."""
        return training_set(self.config, self.data)

    @cached_property
    def order(self) -> Order:
        """The order in which this process sees the training images."""
        images, runtime = self.training.train.labels.numel(), self.config.runtime
        return Order(images, runtime.batch_size, self.processes.rank, self.processes.world_size, runtime.seed)

    @cached_property
    def schedule(self) -> Schedule:
        """Learning rate, weight decay and momentum of every step."""
        return Schedule(self.config, self.order.steps_per_epoch)

    @cached_property
    def software(self) -> dict[str, Any]:
        """The environment of this session."""
        return environment(self.processes)

    def tick(self) -> None:
        """Check for a stop between parts of a probe. Raises Stopped if the run is to stop."""
        self.stop.tick()
