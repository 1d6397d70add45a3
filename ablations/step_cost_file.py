"""The file that `cnnjepa benchmark --cost` writes: steps of several methods, each alternating with steps of
CNN-JEPA."""

import json
import statistics
from pathlib import Path
from typing import Any, Self

from pydantic import AliasChoices, Field, PositiveFloat, ValidationError, model_validator

from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.base import Section
from cnnjepa.schemas.extent import PixelExtent

REFERENCE = "cnnjepa"
MADE_BY = "cnnjepa benchmark --cost"


class MethodSteps(Section):
    """Measured steps of one method."""

    seconds: tuple[PositiveFloat, ...] = Field(min_length=1)
    """Seconds per step, one step per round."""

    reference_seconds: tuple[PositiveFloat, ...] = Field(
        default=(), validation_alias=AliasChoices("reference_seconds", "beside")
    )
    """Seconds of CNN-JEPA's steps in the same rounds; earlier versions called the field `beside`. Empty in the oldest
    files, in which all methods alternated: then CNN-JEPA's own list counts."""

    flops_per_image: PositiveFloat
    """FLOPs per image of a step, forward and backward, at the mean visible fraction."""

    memory_bytes: int = Field(ge=0)
    """Peak memory; see `cnnjepa.measuring.step_costs`."""

    images: int = Field(ge=1)
    """Images per step."""


class StepCostFile(Section):
    """`benchmarks/method_cost.json` below a root."""

    title: str = Field(min_length=1)
    """Batch, image size, preset and hardware in words."""

    preset: str
    """The base preset."""

    batch: int
    """Images per step."""

    image_size: PixelExtent
    """Side of an image in pixels, or [height, width]."""

    methods: dict[str, MethodSteps]
    """Method → its steps."""

    environment: dict[str, Any]
    """Hardware and software."""

    @model_validator(mode="after")
    def _pairs_every_step_with_one_of_the_reference(self) -> Self:
        if REFERENCE not in self.methods:
            raise ValueError(f"the steps of {REFERENCE} are missing")
        for name, one in self.methods.items():
            reference = one.reference_seconds or self.methods[REFERENCE].seconds
            if len(reference) != len(one.seconds):
                raise ValueError(f"{name} has {len(one.seconds)} steps, but {len(reference)} of {REFERENCE}")
        return self

    def shares(self, method: str) -> list[float]:
        """Return the fraction of the method's time that CNN-JEPA takes for the same number of images, round by
        round."""
        other, ours = self.methods[method], self.methods[REFERENCE]
        reference = other.reference_seconds or ours.seconds
        return [b / ours.images / (s / other.images) for s, b in zip(other.seconds, reference, strict=True)]

    def share(self, method: str) -> float:
        """Return the same fraction for the medians."""
        other, ours = self.methods[method], self.methods[REFERENCE]
        reference = statistics.median(other.reference_seconds or ours.seconds)
        return reference / ours.images / (statistics.median(other.seconds) / other.images)


def step_cost_path(root: Path) -> Path:
    """Return the path of the file below a root."""
    return root / "benchmarks" / "method_cost.json"


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise ValueError(f"{twice!r} occurs twice")
    return found


def read_step_costs(path: Path) -> StepCostFile:
    """Return the content of the file. Raises ConfigError, beginning with the path, for anything that the command did
    not write."""
    try:
        return StepCostFile.model_validate(
            json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_each_key_once)
        )
    except ValidationError as error:
        first = error.errors()[0]
        reason = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
    except (OSError, ValueError) as error:
        reason = str(error)
    raise ConfigError(f"{path}: was not written by `{MADE_BY}` ({reason}); measure again")
