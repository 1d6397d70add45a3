"""The storage of a search: an Optuna study in SQLite, a journal file or any database, from which a later process
resumes."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from cnnjepa.ablations.pool import Pool
from cnnjepa.ablations.search.journal_lock import JournalLock, drop_torn_line
from cnnjepa.ablations.search.objective import objective_of
from cnnjepa.ablations.search.place import Place
from cnnjepa.ablations.trial_runner import ATTEMPTS
from cnnjepa.errors import RunError
from cnnjepa.randomness import key as random_key
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.overrides import full_path
from cnnjepa.schemas.space import Range, SearchSpace

# User attributes of Optuna's trial: how it ended, the hashes of its run, and a detail.
HOW, HASH, PROBE, DETAIL = "how", "pretrain_hash", "probe_hash", "detail"
# Attribute with the number of the trial whose settings are tried again because it was lost or stopped.
AGAIN = "again"
# Attribute with the number of consecutive drivers that died while the point was trained and left no newer checkpoint of
# it.
LOST = "lost"
# Value of HOW for a trial that has the same run as another trial of the search. Such a trial does not count.
REPEATED = "repeated"


def storage_at(place: Place, warned: Callable[[str], None]) -> Any:
    """Return Optuna's storage at the place, created if there is none. `warned` is called when a stale lock is removed.
    Raises ConfigError when it cannot be opened."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        if place.journal:
            from optuna.storages import JournalStorage
            from optuna.storages.journal import JournalFileBackend

            assert place.file
            lock = JournalLock(place.file, warned)
            journal = JournalFileBackend(str(place.file), lock)
            drop_torn_line(place.file, lock)
            return JournalStorage(journal)
        return optuna.storages.RDBStorage(place.url)
    except Exception as error:  # SQLAlchemy and the drivers raise many types
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"the search's storage {place.shown} cannot be opened ({reason}); --storage takes a database URL "
            "(sqlite:///FILE, postgresql://…, mysql://…) or journal:FILE"
        ) from None


@contextlib.contextmanager
def storage_errors(place: Place) -> Iterator[None]:
    """Turn errors of a storage during a search into a RunError that names it."""
    try:
        yield
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        reason = (str(error.__cause__ or error).strip() or type(error).__name__).splitlines()[0]
        raise RunError(
            f"the search's storage {place.shown} cannot be read or written ({reason}); the same command resumes the "
            "search"
        ) from None


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """Return Optuna's name of a setting → its distribution. Raises ConfigError for a path that does not exist."""
    return {optuna_name(key, asked): _distribution(asked) for key, asked in space.space.items()}


def optuna_name(key: str, asked: Range) -> str:
    """Return Optuna's name of a setting: the full config path, or the name of named arms."""
    return key if asked.kind == "arms" else full_path(key, "--space")


def _distribution(asked: Range) -> BaseDistribution:
    if asked.kind in ("choice", "arms"):
        return CategoricalDistribution([_storable(value) for value in asked.ends])
    low, high = asked.bounds
    if asked.kind == "int":
        return IntDistribution(int(low), int(high))
    return FloatDistribution(low, high, log=asked.kind == "log")


def _storable(value: Any) -> Any:
    """Return a plain value that a database can store. A list is stored as its text, which `choices_of` reads back."""
    return str(list(value)) if isinstance(value, list | tuple) else value


def choices_of(params: dict[str, Any], space: SearchSpace) -> dict[str, Any]:
    """Return Optuna's parameters in the form of the search: its key → the value, or the named arm's name."""
    written = {optuna_name(key, asked): (key, asked.values) for key, asked in space.space.items()}
    choices = {}
    for setting, stored in params.items():
        key, values = written[setting]
        choices[key] = next((value for value in values if _storable(value) == stored), stored)
    return choices


def open_study(space: SearchSpace, storage: Any, pool: Pool | None = None) -> optuna.Study:
    """Return the study, begun or resumed.

    The sampler's seed depends on the number of existing trials, so that a resumed search does not propose its first
    points again. Trials that were running when their driver died are marked. They are tried again before any new
    proposal, and training resumes from their checkpoints. A point at which drivers died three times, each without a
    newer checkpoint in the `pool`, is not tried again.
    """
    direction = objective_of(space).direction
    study = optuna.create_study(storage=storage, study_name=space.name, direction=direction, load_if_exists=True)
    for trial in study.get_trials(deepcopy=False):
        if trial.state == TrialState.RUNNING:
            _mark_lost(study, trial, pool)
    for point in space.first:
        study.enqueue_trial(
            {optuna_name(key, space.space[key]): _storable(value) for key, value in point.items()}, skip_if_exists=True
        )
    if space.sampler == "grid":
        _enqueue_grid(study, space)
    seed = random_key(space.seed, "search", len(study.get_trials(deepcopy=False))) % 2**32
    sampler: Any = optuna.samplers.RandomSampler(seed=seed)
    if space.sampler == "tpe":
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=False, constant_liar=True)
    study.sampler = sampler
    return study


def _mark_lost(study: optuna.Study, trial: FrozenTrial, pool: Pool | None) -> None:
    study.tell(trial.number, state=TrialState.FAIL)
    lost = int(trial.user_attrs.get(LOST, 0)) + 1
    if HASH not in trial.user_attrs or (pool is not None and _has_newer_checkpoint(trial, pool)):
        lost = 0  # the trial never began, or it makes progress
    # A driver can die after it took a point and before it stored all of it.
    point = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    if point and lost < ATTEMPTS:
        study.enqueue_trial(point, user_attrs={AGAIN: trial.number, LOST: lost})


def _has_newer_checkpoint(trial: FrozenTrial, pool: Pool) -> bool:
    """Return True if the run was saved after the trial began."""
    try:
        saved = (pool.folder(trial.user_attrs[HASH]).checkpoints / "last.pt").stat().st_mtime
    except OSError:
        return False
    return trial.datetime_start is not None and saved > trial.datetime_start.timestamp()


def _enqueue_grid(study: optuna.Study, space: SearchSpace) -> None:
    """Queue every combination that is not in the study yet."""
    for point in space_points(space):
        study.enqueue_trial(point, skip_if_exists=True)


def space_size(space: SearchSpace) -> int | None:
    """Return the number of combinations of a finite space; None if a setting is a real number."""
    if any(asked.kind in ("log", "uniform") for asked in space.space.values()):
        return None
    return math.prod(len(values_of(distribution)) for distribution in distributions(space).values())


def space_points(space: SearchSpace) -> list[dict[str, Any]]:
    """Return every combination of a finite space; the last setting varies fastest."""
    points: list[dict[str, Any]] = [{}]
    for path, distribution in distributions(space).items():
        points = [{**point, path: value} for point in points for value in values_of(distribution)]
    return points


def values_of(distribution: BaseDistribution) -> Sequence[Any]:
    """Return the values of a finite setting, in order."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    assert isinstance(distribution, IntDistribution)
    return range(distribution.low, distribution.high + 1)


def tried(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that count: those that ended, except lost or stopped trials, which are tried again, and
    repetitions of another trial's run."""
    trials = study.get_trials(deepcopy=False)
    uncounted = {trial.user_attrs.get(AGAIN) for trial in trials}
    uncounted |= {trial.number for trial in trials if trial.user_attrs.get(HOW) == REPEATED}
    return [trial for trial in trials if trial.state.is_finished() and trial.params and trial.number not in uncounted]
