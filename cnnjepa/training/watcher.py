"""How a run is watched, without knowing by whom."""

from pathlib import Path
from typing import Any, NamedTuple


class RunPlan(NamedTuple):
    """What is about to happen."""

    run_dir: Path
    pretrain_hash: str
    epochs: int
    steps_per_epoch: int
    first_step: int
    """Steps already done."""
    train_images: int
    global_batch: int
    encoder_params: int
    predictor_params: int
    flops_per_image: float
    visible_share: float
    device: str
    cautions: list[str]


class Watcher:
    """Says nothing. The command line's watcher overrides what it shows."""

    def started(self, plan: RunPlan) -> None:
        """Before the first step."""

    def logged(self, kind: str, values: dict[str, Any]) -> None:
        """A line of metrics.jsonl was written."""

    def stepped(self, step: int) -> None:
        """`step` steps are done."""

    def phase(self, text: str) -> None:
        """Something other than training steps begins."""

    def warned(self, text: str) -> None:
        """Something a person should know, while the run goes on."""
