"""The search's memory: an Optuna study in SQLite, a journal file or any database, that a later process goes on with."""

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
from cnnjepa.ablations.search.place import Place
from cnnjepa.ablations.trial import ATTEMPTS
from cnnjepa.errors import RunError
from cnnjepa.randomness import key as random_key
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.overrides import full_path
from cnnjepa.schemas.space import Range, SearchSpace

# How a trial is known to have ended, as a user attribute of Optuna's trial.
HOW, HASH, PROBE, DETAIL = "how", "pretrain_hash", "probe_hash", "detail"
# The number of the trial whose settings are tried again, because it was lost or stopped.
AGAIN = "again"
# How many drivers in a row died while the point was trained and left no newer checkpoint of it.
LOST = "lost"
# The way in which a trial ends whose run another trial of the search is; it does not count.
REPEATED = "repeated"


def storage_at(place: Place, warned: Callable[[str], None]) -> Any:
    """Optuna's storage at the place, made where there is none; `warned` hears of a stale lock that was removed. Raises
    ConfigError when it cannot be opened."""
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
    except Exception as error:  # SQLAlchemy and the drivers raise many kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"the search's storage {place.shown} cannot be opened ({reason}); --storage takes a database URL "
            "(sqlite:///FILE, postgresql://…, mysql://…) or journal:FILE"
        ) from None


@contextlib.contextmanager
def storage_errors(place: Place) -> Iterator[None]:
    """Turns what a storage raises while the search runs into a RunError that names it."""
    try:
        yield
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        reason = (str(error.__cause__ or error).strip() or type(error).__name__).splitlines()[0]
        raise RunError(
            f"the search's storage {place.shown} cannot be read or written ({reason}); the same command resumes the "
            "search"
        ) from None


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """Optuna's name of a setting → its distribution. Raises ConfigError for a path that does not exist."""
    return {optuna_name(key, asked): _distribution(asked) for key, asked in space.space.items()}


def optuna_name(key: str, asked: Range) -> str:
    """What Optuna calls a setting: the full config path, or the name of named arms."""
    return key if asked.kind == "arms" else full_path(key, "--space")


def _distribution(asked: Range) -> BaseDistribution:
    if asked.kind in ("choice", "arms"):
        return CategoricalDistribution([_storable(value) for value in asked.ends])
    low, high = asked.bounds
    if asked.kind == "int":
        return IntDistribution(int(low), int(high))
    return FloatDistribution(low, high, log=asked.kind == "log")


def _storable(value: Any) -> Any:
    """Databases keep plain values; a list is kept as its text, which `choices_of` reads back."""
    return str(list(value)) if isinstance(value, list | tuple) else value


def choices_of(params: dict[str, Any], space: SearchSpace) -> dict[str, Any]:
    """Optuna's parameters as the search writes them: its key → the value, or the named arm's name."""
    written = {optuna_name(key, asked): (key, asked.values) for key, asked in space.space.items()}
    choices = {}
    for setting, stored in params.items():
        key, values = written[setting]
        choices[key] = next((value for value in values if _storable(value) == stored), stored)
    return choices


def open_study(space: SearchSpace, storage: Any, pool: Pool | None = None) -> optuna.Study:
    """The study, begun or gone on with.

    The sampler's seed moves on with the number of trials there are, so that a search that goes on does not propose
    its first points anew. Trials that were at work when their driver died are marked, and tried again before anything
    new is proposed: what they trained is taken up from its checkpoint. A point in which drivers died three times, each
    without a newer checkpoint in the `pool`, is not tried again.
    """
    study = optuna.create_study(storage=storage, study_name=space.name, direction="maximize", load_if_exists=True)
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
        lost = 0  # it never began, or it advances
    # A driver can die between taking up a point and having set all of it.
    point = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    if point and lost < ATTEMPTS:
        study.enqueue_trial(point, user_attrs={AGAIN: trial.number, LOST: lost})


def _has_newer_checkpoint(trial: FrozenTrial, pool: Pool) -> bool:
    """Return True when the run was saved after the trial began."""
    try:
        saved = (pool.folder(trial.user_attrs[HASH]).checkpoints / "last.pt").stat().st_mtime
    except OSError:
        return False
    return trial.datetime_start is not None and saved > trial.datetime_start.timestamp()


def _enqueue_grid(study: optuna.Study, space: SearchSpace) -> None:
    """Every combination that is not there yet."""
    for point in space_points(space):
        study.enqueue_trial(point, skip_if_exists=True)


def space_size(space: SearchSpace) -> int | None:
    """The number of combinations of a finite space; None where a setting is a real number."""
    if any(asked.kind in ("log", "uniform") for asked in space.space.values()):
        return None
    return math.prod(len(values_of(distribution)) for distribution in distributions(space).values())


def space_points(space: SearchSpace) -> list[dict[str, Any]]:
    """Every combination of a finite space, the last setting fastest."""
    points: list[dict[str, Any]] = [{}]
    for path, distribution in distributions(space).items():
        points = [{**point, path: value} for point in points for value in values_of(distribution)]
    return points


def values_of(distribution: BaseDistribution) -> Sequence[Any]:
    """The values of a finite setting, in order."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    assert isinstance(distribution, IntDistribution)
    return range(distribution.low, distribution.high + 1)


def tried(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that count: ended, and not lost or stopped, since those are tried again, nor the run of another one."""
    trials = study.get_trials(deepcopy=False)
    uncounted = {trial.user_attrs.get(AGAIN) for trial in trials}
    uncounted |= {trial.number for trial in trials if trial.user_attrs.get(HOW) == REPEATED}
    return [trial for trial in trials if trial.state.is_finished() and trial.params and trial.number not in uncounted]
