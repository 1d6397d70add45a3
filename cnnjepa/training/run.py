"""The constant part of a run."""

from pathlib import Path
from typing import Any, NamedTuple

from cnnjepa.data import DataSet
from cnnjepa.data.batches import Order
from cnnjepa.measuring.cost import MethodCost
from cnnjepa.schemas import PretrainConfig
from cnnjepa.training.distributed import Processes
from cnnjepa.training.resolve import Identity
from cnnjepa.training.run_folder import RunFolder
from cnnjepa.training.schedule import Schedule
from cnnjepa.training.stopping import StopRequest
from cnnjepa.training.watcher import Watcher


class Run(NamedTuple):
    """Everything that stays the same during a run."""

    config: PretrainConfig
    data: DataSet
    training: DataSet
    """The images from which the method learns: `data`, without those that a supervised run must not see."""
    identity: Identity
    folder: RunFolder
    processes: Processes
    order: Order
    schedule: Schedule
    cost: MethodCost
    software: dict[str, Any]
    stop: StopRequest
    watcher: Watcher
    floors: Path | None
    """Folder of floors shared with other runs; None means that the run measures its own."""

    def tick(self) -> None:
        """Check for a stop between parts of a probe. Raises Stopped if the run is to stop."""
        self.stop.tick()
