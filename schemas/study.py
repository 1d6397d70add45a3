"""A study: the configs that are compared. There is one file per experiment in `ablations/studies/`; users can write
their own in the same form."""

from collections.abc import Iterable
from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from cnnjepa.schemas.base import Section
from cnnjepa.schemas.yaml_text import read_yaml

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


def arm_named(given: Any, names: Iterable[str]) -> Any:
    """Return the arm's name for a value from a YAML file: names are text as written, while YAML values may be numbers.
    Returns the value itself if it matches none of the names."""
    if given in (names := list(names)):
        return given
    return next((name for name in names if not isinstance(given, str) and read_yaml(name, "") == given), given)


Expected = Literal["worse", "better", "level", "not_worse"]


class Claim(Section):
    """An expected relation of an arm to the baseline, written down before the study is run. The report says whether it
    holds."""

    says: str = Field(min_length=1)
    """The claim, in a sentence."""

    arm: dict[str, Any] = Field(min_length=1)
    """The arm of the claim: axis → value, or axis → name of an arm."""

    expect: Expected
    """The expected relation of the arm to the baseline: `worse` or `better` by the study's test; `level` or `not_worse`
    by the 95 % interval of the difference, which must lie within the margin (`level`) or not below it (`not_worse`)."""

    margin: float | None = Field(default=None, gt=0)
    """Percentage points of accuracy that count as no difference; for `level` and `not_worse` only."""

    @model_validator(mode="after")
    def _has_a_margin_where_it_needs_one(self) -> Self:
        if (self.margin is not None) != (self.expect in ("level", "not_worse")):
            raise ValueError(
                f"a claim that expects {self.expect!r} "
                + ("has no margin; the test alone decides" if self.margin else "needs a margin in percentage points")
            )
        return self


class Study(Section):
    """A base config, axes along which it is changed, and seeds. A trial is one arm with one seed."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)
    """Name of the folder below `studies/`; letters, digits, `.`, `_` and `-`."""

    question: str = ""
    """The question of the study, in a sentence."""

    published: PublishedTable | None = None
    """The table of `ablations/published.yaml` whose numbers are shown next to ours."""

    preset: str = "demo"
    """The base config."""

    set: dict[str, Any] = Field(default_factory=dict)
    """Changes to the base config for every trial: config path (or an unambiguous ending of one) → value."""

    axes: dict[str, Values | NamedArms] = Field(min_length=1)
    """Settings that are varied. Either a config path (or an unambiguous ending) → its values, or a name → named arms,
    each of which changes several fields: `{loss: {l2: {loss.name: l2, loss.normalized: false}, …}}`. Several axes form
    a grid: every combination is an arm."""

    baseline: dict[str, Any] | None = None
    """The arm with which the others are compared: axis → value, or axis → name of an arm. None = the arm that equals
    the base config, else the first."""

    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """Values of `runtime.seed`; every arm has one trial per seed."""

    claims: tuple[Claim, ...] = ()
    """Expected results of arms; the report says whether each claim holds."""

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

    @field_validator("baseline", "claims")
    @classmethod
    def _name_arms_as_the_axes_do(cls, value: Any, info: ValidationInfo) -> Any:
        axes: dict[str, Values | NamedArms] = info.data.get("axes", {})

        def named(arm: dict[str, Any]) -> dict[str, Any]:
            return {
                axis: arm_named(v, axes[axis]) if isinstance(axes.get(axis), dict) else v for axis, v in arm.items()
            }

        if isinstance(value, tuple):
            return tuple(claim.model_copy(update={"arm": named(claim.arm)}) for claim in value)
        return value and named(value)

    @model_validator(mode="after")
    def _baseline_and_claims_name_arms(self) -> Self:
        if self.baseline is not None:
            self._must_name_an_arm(self.baseline, "baseline")
        for claim in self.claims:
            self._must_name_an_arm(claim.arm, f"claim {claim.says!r}")
            if claim.arm == self.baseline:
                raise ValueError(f"claim {claim.says!r} is about the baseline; claims are about other arms")
        return self

    def _must_name_an_arm(self, named: dict[str, Any], who: str) -> None:
        for axis, value in named.items():
            if axis not in self.axes:
                raise ValueError(f"{who} names axis {axis!r}; the axes are {', '.join(self.axes)}")
            values = list(self.axes[axis])
            if value not in values:
                raise ValueError(f"{who}: axis {axis!r} has no {value!r}; must be one of {', '.join(map(str, values))}")
        if missing := [axis for axis in self.axes if axis not in named]:
            raise ValueError(f"{who} must name a value of every axis; {', '.join(missing)} is missing")
