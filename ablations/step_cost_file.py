"""What `cnnjepa benchmark --cost` writes: steps of several methods, each timed in turns with CNN-JEPA's."""

import json
import statistics
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveFloat, ValidationError

from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.base import Section

REFERENCE = "cnnjepa"
MADE_BY = "cnnjepa benchmark --cost"


class MethodSteps(Section):
    """One method's steps."""

    seconds: tuple[PositiveFloat, ...] = Field(min_length=1)
    """A step each, round by round."""

    beside: tuple[PositiveFloat, ...] = ()
    """CNN-JEPA's step of the same rounds; empty = its own list's, of files in which all methods took turns at once."""

    flops_per_image: float
    """A step's, forward and backward, at the mean visible share."""

    memory_bytes: int
    """Peak; see `cnnjepa.step_costs`."""

    images: int = Field(ge=1)
    """A step's."""


class StepCostFile(Section):
    """`benchmarks/method_cost.json` below a root."""

    title: str
    """Batch, image size, preset and hardware in words."""

    preset: str
    """The base preset."""

    batch: int
    """Images a step."""

    image_size: int
    """Pixels a side."""

    methods: dict[str, MethodSteps]
    """Method → its steps."""

    environment: dict[str, Any]
    """Hardware and software."""

    def shares(self, method: str) -> list[float]:
        """The share of the method's time that CNN-JEPA takes for as many images, round by round."""
        other, ours = self.methods[method], self.methods[REFERENCE]
        beside = other.beside or ours.seconds
        return [b / ours.images / (s / other.images) for s, b in zip(other.seconds, beside, strict=True)]

    def share(self, method: str) -> float:
        """The same, of the medians."""
        other, ours = self.methods[method], self.methods[REFERENCE]
        beside = statistics.median(other.beside or ours.seconds)
        return beside / ours.images / (statistics.median(other.seconds) / other.images)


def step_cost_path(root: Path) -> Path:
    """Where the file of a root lies."""
    return root / "benchmarks" / "method_cost.json"


def read_step_costs(path: Path) -> StepCostFile:
    """Raises ConfigError, which begins with the path, for anything that the command did not write."""
    try:
        found = StepCostFile.model_validate(json.loads(path.read_text(encoding="utf-8")))
        if REFERENCE not in found.methods:
            raise ConfigError(f"{path}: lacks the time of {REFERENCE}'s step; measure again with `{MADE_BY}`")
        for name in found.methods:
            found.shares(name)
    except (OSError, ValueError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{path}: is not a file that `{MADE_BY}` wrote ({reason})") from None
    return found
