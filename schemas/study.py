"""A study: which configs are compared. One file an experiment in `ablations/studies/`; a user's own works the same."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from cnnjepa.schemas.base import Section

PublishedTable = Literal[
    "main",
    "main_authors_log",
    "predictor_depth",
    "predictor_depth_in1k",
    "predictor_kernel",
    "predictor_conv",
    "masking",
]

Values = tuple[Any, ...]
NamedArms = dict[str, dict[str, Any]]


class Study(Section):
    """A base config, axes along which it is changed, and seeds; a trial is one arm with one seed."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)
    """Folder below `studies/`; letters, digits, `.`, `_` and `-`."""

    question: str = ""
    """What the study asks, in a sentence."""

    published: PublishedTable | None = None
    """The table of `ablations/published.yaml` whose numbers stand beside ours."""

    preset: str = "demo"
    """The base config."""

    set: dict[str, Any] = Field(default_factory=dict)
    """Changes to the base config for every trial: config path (or an unambiguous ending of one) → value."""

    axes: dict[str, Values | NamedArms] = Field(min_length=1)
    """What varies. Either a config path (or an unambiguous ending) → its values, or a name → named arms, each of
    which changes several fields: `{loss: {l2: {loss.name: l2, loss.normalized: false}, …}}`. Several axes make a
    grid: every combination is an arm."""

    baseline: dict[str, Any] | None = None
    """The arm that the others are compared with: axis → value, or axis → name of an arm. None = the arm that
    equals the base config, else the first."""

    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """`runtime.seed` of an arm's trials."""

    @field_validator("axes")
    @classmethod
    def _have_distinct_values(cls, axes: dict[str, Values | NamedArms]) -> dict[str, Values | NamedArms]:
        for name, values in axes.items():
            if not values:
                raise ValueError(f"axis {name!r} is empty; give it at least one value")
            if isinstance(values, tuple):
                twice = [value for place, value in enumerate(values) if value in values[:place]]
                if twice:
                    raise ValueError(f"axis {name!r} has {twice[0]!r} twice; give every value once")
        return axes

    @field_validator("seeds")
    @classmethod
    def _are_distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(frozenset(seeds)) < len(seeds) or min(seeds) < 0:
            raise ValueError("must be distinct whole numbers of at least 0")
        return seeds

    @model_validator(mode="after")
    def _baseline_names_arms(self) -> Self:
        for axis, value in (self.baseline or {}).items():
            if axis not in self.axes:
                raise ValueError(f"baseline names axis {axis!r}; the axes are {', '.join(self.axes)}")
            legal = list(self.axes[axis])
            if value not in legal:
                raise ValueError(f"baseline: axis {axis!r} has no {value!r}; it has {', '.join(map(str, legal))}")
        if self.baseline is not None and len(self.baseline) < len(self.axes):
            missing = ", ".join(axis for axis in self.axes if axis not in self.baseline)
            raise ValueError(f"baseline must name a value of every axis; {missing} is missing")
        return self
