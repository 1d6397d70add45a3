"""The objective for each value of a setting, over the trials of a search that reached their end."""

import statistics
from typing import Any, NamedTuple

import optuna

from cnnjepa.ablations.search.findings import completed
from cnnjepa.ablations.search.storage import choices_of
from cnnjepa.schemas.space import Range, SearchSpace


class Between(NamedTuple):
    """A part of a range of real numbers."""

    low: float
    high: float


class ValueFigures(NamedTuple):
    """The objectives of the trials with one value of a setting, or with a value from a part of its range."""

    setting: str
    """The setting's name in the search."""
    value: Any
    """The value, the named arm's name, or, for real numbers, half of the range (a Between)."""
    figures: tuple[float, ...]
    """Objective of each trial, the best first."""

    @property
    def mean(self) -> float:
        """Mean of the objectives. Other settings differ between the trials too, so values compare fairly only as far as
        those settings are balanced."""
        return statistics.fmean(self.figures)


def by_value(study: optuna.Study, space: SearchSpace) -> list[ValueFigures]:
    """Return the objectives for every value of a setting that some finished trial had, in the order of the search file.
    Ranges of real numbers are split at their middle (`log`: at the middle of the logarithm). Pruned trials have no
    objective and are left out."""
    trials = [(choices_of(trial.params, space), float(trial.value or 0.0)) for trial in completed(study)]
    found = []
    for setting, asked in space.space.items():
        had = [(choices[setting], figure) for choices, figure in trials if setting in choices]
        for part in _parts(asked, [value for value, _ in had]):
            if figures := tuple(figure for value, figure in had if _part_of(value, asked) == part):
                found.append(ValueFigures(setting, part, figures))
    return found


def _parts(asked: Range, had: list[Any]) -> list[Any]:
    """Return the values in order: the file's order for choices and arms, else ascending."""
    if asked.kind in ("choice", "arms"):
        return list(asked.ends)
    return sorted({_part_of(value, asked) for value in had})


def _part_of(value: Any, asked: Range) -> Any:
    if asked.kind not in ("log", "uniform"):
        return value
    low, high = asked.bounds
    middle = (low * high) ** 0.5 if asked.kind == "log" else (low + high) / 2
    return Between(low, middle) if value < middle else Between(middle, high)
