"""A search: the settings that are varied, their bounds, and the figure that is maximised."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationInfo, field_validator, model_validator

from cnnjepa.schemas.base import Section
from cnnjepa.schemas.errors import ConfigError
from cnnjepa.schemas.study import NamedArms, arm_named
from cnnjepa.schemas.yaml_text import read_yaml, write_inline

OBJECTIVES = ("knn", "linear", "rankme", "lidar", "alpha_req", "loss")
METRIC = "metric:"
"""Beginning of an objective that is a figure of `probe.metrics`; its name follows."""

_FORM = re.compile(r"^(log|uniform|int|choice)\((.*)\)$", re.DOTALL)
# In the names of arms; Ray splits a name at a slash.
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9 _-]*$")
_FORMS = (
    "log(LOW, HIGH), uniform(LOW, HIGH), int(LOW, HIGH), choice(A, B, …) or, in a file, named arms "
    "({NAME: {FIELD: VALUE, …}, …})"
)


class Range(Section):
    """The allowed values of a setting: numbers between bounds, one of several values, or one of several named arms."""

    kind: Literal["log", "uniform", "int", "choice", "arms"]
    """`log`: real, uniform in the logarithm; `uniform`: real; `int`: whole, both bounds included; `choice`; `arms`."""

    bounds: tuple[float, ...] = ()
    """Smallest and largest value, for numbers."""

    values: tuple[Any, ...] = ()
    """The values of a `choice`."""

    arms: NamedArms = Field(default_factory=dict)
    """The named arms of `arms`: name → the fields that it changes together, as in a study's axis."""

    @model_validator(mode="after")
    def _is_a_range(self) -> "Range":
        if self.kind == "choice":
            if twice := [value for place, value in enumerate(self.values) if value in self.values[:place]]:
                raise ValueError(f"choice has {twice[0]!r} twice; give every value once")
            if len(self.values) < 2:
                raise ValueError("choice needs at least two different values")
            return self
        if self.kind == "arms":
            changes = list(self.arms.values())
            if len(changes) < 2 or any(change in changes[:place] for place, change in enumerate(changes)):
                raise ValueError("named arms need at least two that change different things")
            return self
        if len(self.bounds) != 2 or not self.bounds[0] < self.bounds[1]:
            raise ValueError(f"{self.kind} needs two bounds, the lower first")
        if self.kind == "log" and self.bounds[0] <= 0:
            raise ValueError("log needs bounds above 0")
        if self.kind == "int" and any(bound != int(bound) for bound in self.bounds):
            raise ValueError("int needs whole bounds")
        return self

    @property
    def ends(self) -> tuple[Any, ...]:
        """Return the values that must all be valid: both bounds and a number between them, every choice, or every arm's
        name."""
        if self.kind in ("choice", "arms"):
            return self.values or tuple(self.arms)
        low, high = self.bounds
        return (int(low), int(high)) if self.kind == "int" else (low, low + (high - low) / 2**0.5, high)

    def read(self, value: Any) -> Any:
        """Convert a value from YAML (4 is a number there, even if it is an arm's name) to a value of this range. Raises
        ValueError for one that is not in the range."""
        if self.kind in ("choice", "arms"):
            value = arm_named(value, self.arms) if self.kind == "arms" else value
            if value not in self.ends:
                raise ValueError(f"{value!r} is not valid; must be one of {', '.join(map(write_inline, self.ends))}")
            return value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{value!r} is not a number; it must be in {self}")
        if not self.bounds[0] <= value <= self.bounds[1] or (self.kind == "int" and value != int(value)):
            raise ValueError(f"{value!r} is not in {self}")
        return int(value) if self.kind == "int" else float(value)

    def __str__(self) -> str:
        if self.kind == "arms":
            return write_inline(self.arms)
        numbers = (str(int(bound)) if self.kind == "int" else repr(bound) for bound in self.bounds)
        inner = map(write_inline, self.values) if self.kind == "choice" else numbers
        return f"{self.kind}({', '.join(inner)})"


def _range(given: Any) -> Any:
    """Convert `log(1e-4, 1e-1)`, a list for `choice`, or a mapping of mappings for named arms to the fields of a
    Range."""
    if isinstance(given, list | tuple):
        return {"kind": "choice", "values": tuple(given)}
    if isinstance(given, dict) and "kind" not in given:
        if not all(isinstance(change, dict) for change in given.values()):
            raise ValueError(f"{given!r} is not a range; it must be {_FORMS}")
        return {"kind": "arms", "arms": given}
    if not isinstance(given, str):
        return given
    match = _FORM.match(given.strip())
    if not match:
        raise ValueError(f"{given!r} is not a range; it must be {_FORMS}")
    kind, inner = match.groups()
    try:
        values = tuple(read_yaml(f"[{inner}]", kind))
    except ConfigError:
        raise ValueError(f"{given!r} cannot be read; it must be {_FORMS}") from None
    if kind == "choice":
        return {"kind": kind, "values": values}
    if wrong := [value for value in values if isinstance(value, bool) or not isinstance(value, int | float)]:
        raise ValueError(f"{given!r}: {wrong[0]!r} is no number; {kind} needs two numbers")
    return {"kind": kind, "bounds": values}


def _written(asked: Range) -> str | NamedArms:
    return asked.arms if asked.kind == "arms" else str(asked)


Ranged = Annotated[Range, BeforeValidator(_range), PlainSerializer(_written)]


class SearchSpace(Section):
    """A search over settings. Accuracies are measured on the held-out tenth of the training set, where validation
    images are not used; figures without labels are measured on validation images."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)
    """Name of the folder below `studies/`."""

    preset: str = "demo"
    """The base config."""

    set: dict[str, Any] = Field(default_factory=dict)
    """Changes to the base config for every trial: config path (or an unambiguous ending) → value."""

    space: dict[str, Ranged] = Field(min_length=1)
    """Settings that are varied. Either a config path (or an unambiguous ending) → `log(1e-4, 1e-1)`, `uniform(0.9, 1)`,
    `int(1, 4)`, `choice(mixed, random)` or a list of values; or a name → named arms, each of which changes several
    fields."""

    first: tuple[dict[str, Any], ...] = ()
    """Points that are tried before any is proposed: setting, as in `space` → its value, or the arm's name. Settings
    that a point leaves out are proposed by the sampler. Together the points may be a design that no sampler would
    choose (an orthogonal array)."""

    objective: str = "knn"
    """The figure that is optimised. `knn` and `linear`: the accuracies `selection.knn_top1` and `selection.linear_top1`
    of result.json, maximised. `rankme`, `lidar`, `alpha_req` and `loss` need no labels: RankMe and LiDAR are maximised,
    the distance of α-ReQ's exponent from 1 and the loss on held-out images are minimised. `metric:NAME`: the figure
    NAME of `probe.metrics`, maximised."""

    sampler: Literal["tpe", "random", "grid"] = "tpe"
    """`tpe`: tree-structured Parzen estimator (Bergstra et al., 2011); `grid` tries every combination of `choice`,
    `int` and named arms once."""

    seed: int = Field(default=0, ge=0)
    """Seed of the sampler."""

    prune: bool = True
    """Stop trials that are worse than others at an intermediate probe (ASHA, arXiv 1810.05934)."""

    grace_epochs: int | None = Field(default=None, ge=1)
    """Minimum number of epochs of every trial; None = a sixth of the run, and at least up to the first probe."""

    reduction: int = Field(default=3, ge=2)
    """Reduction factor of ASHA, which keeps one in so many trials at each rung. Source: the paper uses 4; ours is
    milder, for few trials."""

    @field_validator("objective")
    @classmethod
    def _is_a_figure(cls, value: str) -> str:
        if value not in OBJECTIVES and not (value.startswith(METRIC) and value != METRIC):
            raise ValueError(
                f"{value!r} is no objective; must be one of {', '.join(OBJECTIVES)}, or metric:NAME for a figure of "
                "probe.metrics"
            )
        return value

    @field_validator("space")
    @classmethod
    def _arms_have_names_that_can_be_kept(cls, space: dict[str, Range]) -> dict[str, Range]:
        for name, asked in space.items():
            if asked.kind == "arms" and not _NAME.match(name):
                raise ValueError(f"{name!r} names arms; must consist of letters, digits, spaces, '-' and '_'")
        return space

    @field_validator("first")
    @classmethod
    def _lie_in_the_space(cls, points: tuple[dict[str, Any], ...], info: ValidationInfo) -> Any:
        space: dict[str, Range] = info.data.get("space", {})
        read: list[dict[str, Any]] = []
        for place, point in enumerate(points if space else ()):
            if not point:
                raise ValueError(f"point {place} is empty; give at least one setting")
            if unknown := [setting for setting in point if setting not in space]:
                raise ValueError(f"point {place}: {unknown[0]!r} is not searched; searched are {', '.join(space)}")
            try:
                read.append({setting: space[setting].read(value) for setting, value in point.items()})
            except ValueError as error:
                raise ValueError(f"point {place}: {error}") from None
            if read[-1] in read[:-1]:
                raise ValueError(f"point {place} is there twice; give every point once")
        return tuple(read)

    @model_validator(mode="after")
    def _grid_is_finite(self) -> "SearchSpace":
        partial = [place for place, point in enumerate(self.first) if len(point) < len(self.space)]
        if self.sampler == "grid" and partial:
            raise ValueError(f"sampler grid proposes nothing, so point {partial[0]} of `first` must have every setting")
        endless = [path for path, r in self.space.items() if r.kind in ("log", "uniform")]
        if self.sampler == "grid" and endless:
            raise ValueError(
                f"sampler grid needs choice(…), int(…) or named arms; {endless[0]} is {self.space[endless[0]]}"
            )
        return self
