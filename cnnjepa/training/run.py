"""What stays the same during a run."""

from pathlib import Path
from typing import Any, NamedTuple

from cnnjepa.cost import MethodCost
from cnnjepa.data import DataSet
from cnnjepa.data.batches import Order
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
    """What the method learns from: `data`, without the images that a supervised run must not see."""
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
    """Where floors are shared with other runs; None = each run measures its own."""

    def tick(self) -> None:
        """Called between pieces of a probe. Raises Stopped when the run is to stop."""
        self.stop.tick()
