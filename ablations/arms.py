"""The arms of a study: every combination of its axes once, each with its changes and its label."""

import itertools
import json
from dataclasses import dataclass, field, replace
from typing import Any

from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.numbers import exact
from cnnjepa.schemas.overrides import full_path, full_paths
from cnnjepa.schemas.study import Study

# Settings that a study decides for every trial.
_DECIDED = {
    "runtime.seed": "seeds are repetitions, not settings; give them as the study's seeds (--seeds)",
    "runtime.threads": "every process has as many threads as CPUs; give them with --cpus-per-trial",
}
# Settings whose value of two numbers is height and width, not a range.
_SIZES = ("data.image_size", "method.local_size")


@dataclass(frozen=True)
class Arm:
    """One setting that is compared with the others."""

    label: str
    """Name of the arm in tables: `depth=2, conv=dense`, or the bare name for an axis of named arms. Labels are unique
    within a study."""
    choices: dict[str, Any] = field(hash=False)
    """Axis, as the study names it → the value, or the name of the named arm."""
    changes: dict[str, Any] = field(hash=False)
    """Full config path → value. These changes are applied to the base config."""


def study_changes(study: Study) -> dict[str, Any]:
    """Return the study's own changes to its base config by full path. Raises ConfigError for a path that does not
    exist."""
    return _paths(study.set, "set:")


def arms_of(study: Study) -> list[Arm]:
    """Return every combination of the study's axes; the last axis varies fastest. Raises ConfigError naming the
    axis."""
    _paths({axis: values for axis, values in study.axes.items() if isinstance(values, tuple)}, "axis")
    options = [_options(axis, values) for axis, values in study.axes.items()]
    labels = _short_names([axis for axis, values in study.axes.items() if isinstance(values, tuple)])
    arms = []
    for combination in itertools.product(*options):
        choices = {axis: choice for axis, (choice, _) in zip(study.axes, combination, strict=True)}
        changes: dict[str, Any] = {}
        for axis, (_, change) in zip(study.axes, combination, strict=True):
            clash = sorted(changes.keys() & change.keys())
            if clash:
                raise ConfigError(f"axis {axis!r}: {clash[0]} is set by another axis too; remove it from one of them")
            changes |= change
        parts = [
            f"{labels[axis]}={_text(choice, _between(axis))}" if axis in labels else choice
            for axis, choice in choices.items()
        ]
        arms.append(Arm(", ".join(parts), choices, changes))
    if len({arm.label for arm in arms}) == len(arms):
        return arms
    # Two labels can be equal when an axis has both the text 1 and the number 1, or when names contain commas. Written
    # as JSON under the axes' names, they differ.
    return [replace(arm, label=", ".join(unmistakable(*choice) for choice in arm.choices.items())) for arm in arms]


def unmistakable(axis: str, choice: Any) -> str:
    """Return the choice on an axis as JSON, in which the text 1 and the number 1 differ."""
    return f"{axis}={json.dumps(choice, ensure_ascii=False, default=str)}"


def _options(axis: str, values: Any) -> list[tuple[Any, dict[str, Any]]]:
    """Return (choice, changes) for every value of an axis."""
    if isinstance(values, tuple):
        return [(value, _paths({axis: value}, "axis")) for value in values]
    return [(name, _paths(changes, f"axis {axis}, arm {name}:")) for name, changes in values.items()]


def _paths(changes: dict[str, Any], asked_by: str) -> dict[str, Any]:
    """Return the changes by their full paths. Raises ConfigError for a setting that the study decides itself, and for
    the same reasons as `full_paths`."""
    found = full_paths(changes, asked_by)
    if decided := [path for path in found if path in _DECIDED]:
        raise ConfigError(f"{asked_by} {decided[0]}: {_DECIDED[decided[0]]}")
    return found


def _short_names(axes: list[str]) -> dict[str, str]:
    """Map each axis to the shortest suffix of its full path that no other axis shares."""
    paths = {axis: full_path(axis, "axis").split(".") for axis in axes}
    names = {}
    for axis, path in paths.items():
        others = [other for key, other in paths.items() if key != axis]
        length = next(n for n in range(1, len(path) + 1) if all(other[-n:] != path[-n:] for other in others))
        names[axis] = ".".join(path[-length:])
    return names


def _between(axis: str) -> str:
    """Return what stands between the numbers of a list."""
    return "x" if full_path(axis) in _SIZES else "–"


def _text(value: Any, between: str) -> str:
    if isinstance(value, list | tuple):
        return between.join(_text(one, between) for one in value)
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    return exact(value) if isinstance(value, float) else str(value)
