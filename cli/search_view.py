"""A search as a person sees it: a line whenever something happens, and the tables at its end."""

import time
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cnnjepa.schemas.space import SearchSpace

if TYPE_CHECKING:
    from cnnjepa.ablations.search.run import News

_SHOWN = 8


class Course:
    """A line whenever something happens to a trial: what it tries, its figure at every probe, its end."""

    def __init__(self, console: Console, done: int, trials: int) -> None:
        self._console, self._done, self._trials = console, done, trials
        self._best: float | None = None
        self._began: dict[int, float] = {}

    def __call__(self, news: "News") -> None:
        """Prints the line."""
        if news.how == "begins":
            self._began[news.trial] = time.monotonic()
            return self._say(news, ", ".join(f"{key} {_text(value)}" for key, value in news.choices.items()))
        parts = [] if news.value is None else [f"{news.value:.2f} %"]
        if news.ended:
            self._done += 1
            if news.how == "finished" and news.value is not None and (self._best is None or news.value > self._best):
                self._best = news.value
                parts.append("best so far")
            if news.trial in self._began:
                parts.append(f"after {(time.monotonic() - self._began[news.trial]) / 60:.1f} min")
            parts.append(f"({self._done} of {self._trials} done)")
        parts += news.detail.splitlines()[:1]
        return self._say(news, "  ".join(parts))

    def _say(self, news: "News", text: str) -> None:
        line = f"trial {news.trial:>3}  {news.how:<9} {text}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def show(study: Any, space: SearchSpace) -> None:
    """Prints the best trials, what each value came to, how the trials ended and what mattered."""
    from cnnjepa.ablations.search.findings import completed, importances, importances_need
    from cnnjepa.ablations.search.storage import HOW, choices_of, grid_points, optuna_name, tried

    console = Console()
    title = f"[bold]{space.name}[/]: {space.objective} top-1 on held-out training images, %"
    table = Table(title=title, title_justify="left", title_style="")
    settings = {optuna_name(key, asked): key for key, asked in space.space.items()}
    for column in ("trial", "figure", *space.space):
        table.add_column(column.replace(".", ".\n"), justify="right")  # a long path in lines of its own, not cut
    for trial in completed(study)[:_SHOWN]:
        choices = choices_of(trial.params, space)
        cells = [escape(_text(choices.get(key))) for key in space.space]
        table.add_row(str(trial.number), f"{trial.value:.2f}", *cells)
    console.print(table)
    _show_values(console, study, space)
    ways = [trial.user_attrs.get(HOW, "lost") for trial in tried(study)]
    console.print(", ".join(f"{ways.count(way)} {way}" for way in dict.fromkeys(ways)), highlight=False)
    found = importances(study)
    if found:
        shares = ", ".join(f"{settings.get(path, path)} {100 * share:.0f} %" for path, share in found.items())
        console.print(
            f"importance (PED-ANOVA, {len(completed(study))} trials): {shares}", highlight=False, soft_wrap=True
        )
    elif (more := importances_need(study)) and not (
        space.sampler == "grid" and len(tried(study)) == len(grid_points(space))
    ):
        console.print(
            f"importance of the settings: told when {more} more have reached their end (--trials; with "
            "--no-prune none is given up)", highlight=False, soft_wrap=True
        )  # fmt: skip


def _show_values(console: Console, study: Any, space: SearchSpace) -> None:
    from cnnjepa.ablations.search.values import Between, by_value

    table = Table(title="by value, of trials that reached their end", title_justify="left", title_style="")
    for column in ("setting", "value"):
        table.add_column(column, overflow="fold")
    for column in ("n", "mean", "from", "to"):
        table.add_column(column, justify="right", no_wrap=True)
    before = None
    for part in by_value(study, space):
        value = " to ".join(map(_text, part.value)) if isinstance(part.value, Between) else _text(part.value)
        numbers = f"{part.mean:.2f}", f"{min(part.figures):.2f}", f"{max(part.figures):.2f}"
        name = "" if part.setting == before else part.setting
        table.add_row(escape(name), escape(value), str(len(part.figures)), *numbers)
        before = part.setting
    if before is not None:
        console.print(table)
        console.print("means compare values fairly only where the other settings are balanced", style="dim")


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
