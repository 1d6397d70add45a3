"""Display of a search: one line per event, and the tables at its end."""

import time
from typing import TYPE_CHECKING, Any

from rich.console import Console

from cnnjepa.cli.sheet import Sheet
from cnnjepa.cli.terminal import console, say
from cnnjepa.schemas.numbers import counted, digits_apart, duration
from cnnjepa.schemas.space import SearchSpace

if TYPE_CHECKING:
    from cnnjepa.ablations.search.objective import Objective
    from cnnjepa.ablations.search.proposals import News

_SHOWN = 8
_DIGITS = 3  # of a number, unless more are needed to distinguish two in a table


class Course:
    """Printer of one line per event of a trial: its settings, its figure at every probe, its end."""

    def __init__(self, console: Console, done: int, trials: int, objective: "Objective") -> None:
        self._console, self._done, self._trials, self._objective = console, done, trials, objective
        self._best: float | None = None
        self._began: dict[int, float] = {}

    def __call__(self, news: "News") -> None:
        """Print the line of an event."""
        if news.how == "begins":
            self._began[news.trial] = time.monotonic()
            return self._say(news, ", ".join(f"{key} {_text(value)}" for key, value in news.choices.items()))
        parts = [] if news.value is None else [self._objective.text(news.value, online=not news.ended)]
        if news.ended:
            self._done += 1
            best = self._best is None or (news.value is not None and self._objective.better(news.value, self._best))
            if news.how == "finished" and news.value is not None and best:
                self._best = news.value
                parts.append("best so far")
            if news.trial in self._began:
                parts.append(f"after {duration(time.monotonic() - self._began[news.trial])}")
            parts.append(f"({self._done} of {self._trials} done)")
        parts += news.detail.splitlines()[:1]
        return self._say(news, "  ".join(parts))

    def _say(self, news: "News", text: str) -> None:
        line = f"trial {news.trial:>3}  {news.how:<9} {text}"
        say(self._console, line)


def show(study: Any, space: SearchSpace) -> None:
    """Print the best trials, the objectives per value, how the trials ended, and the importances."""
    from cnnjepa.ablations.search.findings import completed, importances, importances_need
    from cnnjepa.ablations.search.objective import objective_of
    from cnnjepa.ablations.search.storage import HOW, choices_of, optuna_name, space_size, tried

    out, objective = console(), objective_of(space)
    # A long path is split into several lines, not cut.
    headers = ("trial", "figure", *(key.replace(".", ".\n") for key in space.space))
    unit = f",{objective.unit}" if objective.unit else ""
    title = (space.name, "bold"), f": {objective.label} on {objective.images}{unit}"
    table = Sheet(headers, title=title, folding=(), left=())
    settings = {optuna_name(key, asked): key for key, asked in space.space.items()}
    best = completed(study)[:_SHOWN]
    choices = [choices_of(trial.params, space) for trial in best]
    digits = {key: digits_apart([chosen.get(key) for chosen in choices], _DIGITS) for key in space.space}
    for trial, chosen in zip(best, choices, strict=True):
        cells = [_text(chosen.get(key), digits[key]) for key in space.space]
        table.add(str(trial.number), _number(trial.value or 0.0, objective), *cells)
    out.print(table)
    _show_values(out, study, space, objective)
    ways = [trial.user_attrs.get(HOW, "lost") for trial in tried(study)]
    say(out, ", ".join(f"{ways.count(way)} {way}" for way in dict.fromkeys(ways)))
    found = importances(study)
    if found:
        shares = ", ".join(f"{settings.get(path, path)} {100 * share:.0f} %" for path, share in found.items())
        say(out, f"importance (PED-ANOVA, {counted(len(completed(study)), 'trial')}): {shares}")
    elif (more := importances_need(study)) and not (space.sampler == "grid" and len(tried(study)) == space_size(space)):
        say(
            out,
            f"importance of the settings: shown once {more} more trials have run to their end (raise --trials; "
            "--no-prune keeps trials from being stopped early)",
        )


def _number(value: float, objective: "Objective") -> str:
    """Return a figure without its unit, which the title has."""
    return f"{value:.{objective.digits}f}"


def _show_values(out: Console, study: Any, space: SearchSpace, objective: "Objective") -> None:
    from cnnjepa.ablations.search.values import by_value

    title = ("by value, of trials that reached their end",)
    table = Sheet(("setting", "value", "n", "mean", "from", "to"), title=title, folding=(0, 1), left=(0, 1))
    before, parts = None, by_value(study, space)
    ends = {key: [end for part in parts if part.setting == key for end in _ends(part.value)] for key in space.space}
    for part in parts:
        value = " to ".join(_text(end, digits_apart(ends[part.setting], _DIGITS)) for end in _ends(part.value))
        numbers = [_number(one, objective) for one in (part.mean, min(part.figures), max(part.figures))]
        name = "" if part.setting == before else part.setting
        table.add(name, value, str(len(part.figures)), *numbers)
        before = part.setting
    if before is not None:
        out.print(table)
        say(out, ("means compare values fairly only where the other settings are balanced", "dim"))


def _ends(value: Any) -> tuple[Any, ...]:
    """Return both ends of a part of a range, or the single value."""
    from cnnjepa.ablations.search.values import Between

    return tuple(value) if isinstance(value, Between) else (value,)


def _text(value: Any, digits: int = _DIGITS) -> str:
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)
