"""The points of a search that are settled: which run each one names, and whether any point is left."""

import json
from typing import Any, NamedTuple

import optuna
from optuna.trial import FrozenTrial, Trial

from cnnjepa.ablations.search.storage import HASH, HOW, PROBE, REPEATED, space_size, tried
from cnnjepa.schemas.space import SearchSpace


class RunName(NamedTuple):
    """The name of a point's run. Points with equal names are one trial; points with an equal pretrain_hash share one
    run folder."""

    pretrain_hash: str
    probe_hash: str


def exhausted(study: optuna.Study, space: SearchSpace) -> int | None:
    """Return the number of points if every point of a finite space was tried; None otherwise."""
    size = space_size(space)
    return size if size is not None and len({point_key(trial.params) for trial in seen(study)}) >= size else None


def seen(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials whose points are settled: trials that count, and trials whose run belongs to a trial that
    counts."""
    counted = tried(study)
    names = {run_name_of(trial) for trial in counted} - {None}
    repeated = [t for t in study.get_trials(deepcopy=False) if t.user_attrs.get(HOW) == REPEATED]
    return [*counted, *(trial for trial in repeated if run_name_of(trial) in names)]


def run_name_of(trial: FrozenTrial) -> RunName | None:
    """Return the trial's run name; None for trials that never began, and for trials of versions that stored no
    probe_hash."""
    if PROBE not in trial.user_attrs:
        return None
    return RunName(trial.user_attrs[HASH], trial.user_attrs[PROBE])


def set_run_name(trial: Trial, name: RunName) -> None:
    """Store the run's name with the trial."""
    trial.set_user_attr(HASH, name.pretrain_hash)
    trial.set_user_attr(PROBE, name.probe_hash)


def point_key(params: dict[str, Any]) -> str:
    """Return a text that is equal for equal points."""
    return json.dumps(params, sort_keys=True, default=str)
