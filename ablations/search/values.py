"""What each value of a setting came to, over the trials of a search that reached their end."""

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
    """The figures of the trials that had one value of a setting, or one from a part of its range."""

    setting: str
    """As the search names it."""
    value: Any
    """The value, the named arm's name, or of real numbers the half of the range (a Between)."""
    figures: tuple[float, ...]
    """Objective of each, top-1 in percent, largest first."""

    @property
    def mean(self) -> float:
        """Mean of the figures. Other settings differ between the trials too, so the comparison of values is only as
        fair as those settings are balanced."""
        return statistics.fmean(self.figures)


def by_value(study: optuna.Study, space: SearchSpace) -> list[ValueFigures]:
    """Every setting's values that some finished trial had, in the order of the search file; real numbers are parted in
    the middle of their range (`log`: of its logarithm). Given up trials have no figure and are not in it."""
    trials = [(choices_of(trial.params, space), float(trial.value or 0.0)) for trial in completed(study)]
    found = []
    for setting, asked in space.space.items():
        had = [(choices[setting], figure) for choices, figure in trials if setting in choices]
        for part in _parts(asked, [value for value, _ in had]):
            if figures := tuple(figure for value, figure in had if _part_of(value, asked) == part):
                found.append(ValueFigures(setting, part, figures))
    return found


def _parts(asked: Range, had: list[Any]) -> list[Any]:
    """In their order: the file's of choices and arms, else from the least."""
    if asked.kind in ("choice", "arms"):
        return list(asked.ends)
    return sorted({_part_of(value, asked) for value in had})


def _part_of(value: Any, asked: Range) -> Any:
    if asked.kind not in ("log", "uniform"):
        return value
    low, high = asked.bounds
    middle = (low * high) ** 0.5 if asked.kind == "log" else (low + high) / 2
    return Between(low, middle) if value < middle else Between(middle, high)
