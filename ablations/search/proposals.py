"""The points of a search, one after another. No point is trained twice, or while another process trains it. A point
whose process dies is not proposed forever."""

import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from cnnjepa.ablations.search.settled_points import RunName, point_key, run_name_of, seen, set_run_name
from cnnjepa.ablations.search.storage import (
    AGAIN,
    DETAIL,
    HOW,
    REPEATED,
    choices_of,
    distributions,
    space_points,
    space_size,
    tried,
    values_of,
)
from cnnjepa.ablations.trial_runner import ATTEMPTS
from cnnjepa.randomness import key as random_key
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.space import SearchSpace

# Number of consecutive points whose processes die before the search ends, because the machines may be at fault.
# Assumption.
_DEAD_IN_A_ROW = 5
# Number of consecutive proposals that were tried before, after which a space of real numbers counts as used up.
_MOST_REPEATS = 100
# In a space with more points, an untried point is found by drawing at random, not chosen from a list of all: nearly all
# are untried.
_LISTED = 10_000
# Seconds between checks of runs that another process trains.
_LOOK_AGAIN = 1.0


class News(NamedTuple):
    """An event in a trial of a search."""

    trial: int
    how: str
    """`begins`, `waits` while another process trains the same settings, `epoch N` at an intermediate probe, or how it
    ended: `finished`, `pruned`, `collapsed`, …"""
    value: float | None
    """The objective at the end; at an epoch, the figure of the online probe that stands for it."""
    detail: str
    choices: dict[str, Any]
    """The proposal: the search's key → the value, or the named arm's name."""
    ended: bool


OnNews = Callable[[News], None]


class Proposals:
    """Optuna's proposals without the points that are already tried or running. Not thread-safe."""

    def __init__(
        self,
        study: optuna.Study,
        space: SearchSpace,
        trials: int,
        name: Callable[[dict[str, Any]], RunName],
        holder: Callable[[str], str | None],
        on_news: OnNews,
    ) -> None:
        """Propose until there are `trials` in all, earlier ones included. `name` returns the run of a point (the
        search's key → value), or raises ConfigError for a point that no trial can have. `holder` returns the process
        that currently trains the run of a pretrain_hash, None if there is none."""
        self._study, self._space, self._trials = study, space, trials
        self._name, self._holder, self._on_news = name, holder, on_news
        self._distributions, self._size = distributions(space), space_size(space)
        counted = tried(study)
        self._count = len(counted)
        self._tried = {point_key(trial.params) for trial in seen(study)}
        self._names = {found for trial in counted if (found := run_name_of(trial))}
        self._open: dict[int, tuple[Trial, RunName]] = {}
        self._held: list[tuple[Trial, RunName]] = []
        self._looked = float("-inf")
        self._repeats = self._dead = 0

    @property
    def over(self) -> bool:
        """True if no trial is running and no more will be proposed."""
        return not self._open and not self._held and (self._enough or self.machines_fail or self._used_up)

    @property
    def machines_fail(self) -> bool:
        """True if so many consecutive trials died that the machines may be at fault."""
        return self._dead >= _DEAD_IN_A_ROW

    @property
    def _enough(self) -> bool:
        return self._count + len(self._open) + len(self._held) >= self._trials

    @property
    def _used_up(self) -> bool:
        """True if every point of the space is tried or running."""
        if self._size is None:
            return self._repeats >= _MOST_REPEATS
        return len(self._tried | self._taken) >= self._size

    @property
    def _taken(self) -> set[str]:
        return {point_key(trial.params) for trial, _ in [*self._open.values(), *self._held]}

    def next(self) -> Trial | None:
        """Return the next trial to train; None if there is none now (see `over`)."""
        if released := self._released():
            return released
        while not (self._enough or self.machines_fail or self._used_up):
            if self._repeats and self._size is not None and not self._waiting():
                self._study.enqueue_trial(self._untried())
            trial = self._study.ask(fixed_distributions=self._distributions)
            if self._admitted(trial):
                return trial
        return None

    def looked(self, trial: Trial, value: float, epoch: int) -> None:
        """Store the figure of an intermediate probe."""
        trial.report(value, epoch)
        self._tell(trial, f"epoch {epoch}", value)

    def end(self, trial: Trial, how: str, value: float | None = None, detail: str = "") -> None:
        """Write the trial's end into the storage. A stopped trial is queued again. A trial whose run another process
        trains (`busy`) waits for it and stays open."""
        _, name = self._open.pop(trial.number)
        if how == "busy":
            self._hold(trial, name, detail)
            return
        if how == "finished" and value is None:
            how = "without a figure"
        if how == "died":
            detail = detail or f"its process died {ATTEMPTS} times; the point is not tried again"
        self._dead = self._dead + 1 if how == "died" else 0
        self._close(trial, how, value, detail)
        if how == "stopped":
            self._study.enqueue_trial(trial.params, user_attrs={AGAIN: trial.number})
        else:
            self._names.add(name)

    def close(self) -> None:
        """Queue the trials again that still wait for another process."""
        while self._held:
            trial, name = self._held.pop()
            self._open[trial.number] = trial, name
            self.end(trial, "stopped")

    def _close(self, trial: Trial, how: str, value: float | None = None, detail: str = "") -> None:
        trial.set_user_attr(HOW, how)
        if detail:
            trial.set_user_attr(DETAIL, detail)
        if how == "finished":
            self._study.tell(trial, value)
        else:
            state = TrialState.PRUNED if how in ("pruned", "collapsed") else TrialState.FAIL
            self._study.tell(trial, state=state)
        if how != "stopped":
            self._tried.add(point_key(trial.params))
            self._count += 1
        self._tell(trial, how, value, detail, ended=True)

    def _repeat(self, trial: Trial, name: RunName | None = None) -> None:
        """End a trial that repeats another one: the same point, or, if `name` is given, another point with the same
        run."""
        self._repeats += 1
        trial.set_user_attr(HOW, REPEATED)
        if name is not None:
            set_run_name(trial, name)
            self._tried.add(point_key(trial.params))
        self._study.tell(trial, state=TrialState.FAIL)

    def _admitted(self, trial: Trial) -> bool:
        """Return True if the trial is to be trained now; otherwise it has ended or waits."""
        if point_key(trial.params) in self._tried | self._taken:
            self._repeat(trial)
            return False
        try:
            name = self._name(choices_of(trial.params, self._space))
        except ConfigError as refusal:
            self._repeats = 0
            self._close(trial, "refused", detail=str(refusal))
            return False
        if name in self._names or any(name == at_work for _, at_work in [*self._open.values(), *self._held]):
            self._repeat(trial, name)
            return False
        self._repeats = 0
        if busy := self._user_of(name):
            self._hold(trial, name, busy)
            return False
        self._begin(trial, name)
        return True

    def _begin(self, trial: Trial, name: RunName) -> None:
        set_run_name(trial, name)
        self._open[trial.number] = trial, name
        self._tell(trial, "begins")

    def _hold(self, trial: Trial, name: RunName, why: str) -> None:
        self._held.append((trial, name))
        self._tell(trial, "waits", detail=why)

    def _released(self) -> Trial | None:
        """Return a waiting trial whose run no process trains any more: its result is shared, or its training
        resumed."""
        if not self._held or time.monotonic() - self._looked < _LOOK_AGAIN:
            return None
        for place, (trial, name) in enumerate(self._held):
            if not self._user_of(name):
                del self._held[place]
                self._begin(trial, name)
                return trial
        self._looked = time.monotonic()
        return None

    def _user_of(self, name: RunName) -> str | None:
        """Return who uses the run folder now; None if it is free."""
        mine = [trial for trial, at_work in self._open.values() if at_work.pretrain_hash == name.pretrain_hash]
        if mine:
            return f"trial {mine[0].number} trains the same network"
        held_by = self._holder(name.pretrain_hash)
        return None if held_by is None else f"another process trains these settings ({held_by})"

    def _waiting(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))

    def _untried(self) -> dict[str, Any]:
        """Return a point of a finite space that is neither tried nor running, drawn uniformly."""
        draws = random.Random(random_key(self._space.seed, "untried", len(self._study.get_trials(deepcopy=False))))
        gone = self._tried | self._taken
        assert self._size is not None
        if self._size <= _LISTED:
            return draws.choice([point for point in space_points(self._space) if point_key(point) not in gone])
        while True:
            point = {name: draws.choice(values_of(drawn)) for name, drawn in self._distributions.items()}
            if point_key(point) not in gone:
                return point

    def _tell(
        self, trial: Trial, how: str, value: float | None = None, detail: str = "", *, ended: bool = False
    ) -> None:
        self._on_news(News(trial.number, how, value, detail, choices_of(trial.params, self._space), ended))
