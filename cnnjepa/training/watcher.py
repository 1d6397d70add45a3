"""The interface through which the progress of a run is shown."""

from pathlib import Path
from typing import Any, NamedTuple


class RunPlan(NamedTuple):
    """The run that is about to start."""

    run_dir: Path
    pretrain_hash: str
    epochs: int
    steps_per_epoch: int
    first_step: int
    """Number of steps already done."""
    train_images: int
    global_batch: int
    encoder_params: int
    predictor_params: int
    flops_per_image: float
    visible_share: float
    device: str
    warnings: list[str]
    found: str = ""
    """Images, classes and splits found, in one line; empty if the source is known by its name."""
    start: str = ""
    """The given weights or the run from which this run starts, in one line; empty for random weights."""


class Watcher:
    """A watcher that shows nothing. The command line's watcher overrides its methods."""

    def started(self, plan: RunPlan) -> None:
        """Called before the first step."""

    def logged(self, kind: str, values: dict[str, Any]) -> None:
        """Called after a line of metrics.jsonl was written."""

    def stepped(self, step: int) -> None:
        """Called after `step` steps are done."""

    def phase(self, text: str) -> None:
        """Called when something other than training steps begins."""

    def warned(self, text: str) -> None:
        """Called for a warning, while the run continues."""
