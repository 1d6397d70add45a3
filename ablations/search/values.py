"""What each value of a setting came to, over the trials of a search that reached their end."""

import statistics
from typing import Any, NamedTuple

import optuna

from cnnjepa.ablations.search.findings import completed
from cnnjepa.ablations.search.storage import choices_of
from cnnjepa.schemas.space import Range, SearchSpace


class ValueFigures(NamedTuple):
    """The figures of the trials that had one value of a setting, or one from a part of its range."""

    setting: str
    """As the search names it."""
    value: Any
    """The value, the named arm's name, or (least, greatest) of a half of a range of real numbers."""
    figures: tuple[float, ...]
    """Objective of each, top-1 in percent, largest first."""

    @property
    def mean(self) -> float:
        """Of the figures. The other settings differ too: it compares values only as fairly as those are balanced."""
        return statistics.fmean(self.figures)


def by_value(study: optuna.Study, space: SearchSpace) -> list[ValueFigures]:
    """Every setting's values that some finished trial had, in the order of the search file; real numbers are parted in
    the middle of their range (`log`: of its logarithm). Given up trials have no figure and are not in it."""
    trials = [(choices_of(trial.params, space), float(trial.value or 0.0)) for trial in completed(study)]
    found = []
    for setting, asked in space.space.items():
        had = [(choices[setting], figure) for choices, figure in trials if setting in choices]
        for value, holds in _parts(asked):
            if figures := tuple(figure for chosen, figure in had if holds(chosen)):
                found.append(ValueFigures(setting, value, figures))
    return found


def _parts(asked: Range) -> list[tuple[Any, Any]]:
    """(what it is called, whether a value belongs to it)."""
    if asked.kind in ("choice", "arms"):
        return [(value, lambda chosen, value=value: chosen == value) for value in asked.ends]
    low, high = asked.bounds
    if asked.kind == "int":
        return [(n, lambda chosen, n=n: chosen == n) for n in range(int(low), int(high) + 1)]
    middle = (low * high) ** 0.5 if asked.kind == "log" else (low + high) / 2
    return [((low, middle), lambda chosen: chosen < middle), ((middle, high), lambda chosen: chosen >= middle)]
