"""A search as Ray Tune trials: OptunaSearch proposes, ASHA gives up, the storage remembers."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.trial import TrialState
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from cnnjepa.ablations.ray_executor import AskToStop, NotKept, trial_resources
from cnnjepa.ablations.search.points import config_of
from cnnjepa.ablations.search.storage import (
    AGAIN,
    DETAIL,
    HASH,
    HOW,
    PROBE,
    choices_of,
    distributions,
    open_study,
    tried,
)
from cnnjepa.ablations.search.trial import SearchTask, search_trial
from cnnjepa.ablations.share import Capacity
from cnnjepa.ablations.study_folder import StudyFolder
from cnnjepa.ablations.trial import ATTEMPTS
from cnnjepa.schemas.space import SearchSpace


class _Proposals(NotKept, OptunaSearch):
    """OptunaSearch with what it lacks: a trial that was given up is PRUNED in the storage (not COMPLETE at its last
    intermediate figure), one that was lost or stopped is tried again, and why a trial failed is kept with it."""

    def __init__(
        self, space: SearchSpace, study: optuna.Study, storage: Any, stopping: Callable[[], bool], told: "Told"
    ) -> None:
        super().__init__(
            space=distributions(space), metric="objective", mode="max", study_name=space.name, storage=storage,
            sampler=study.sampler,
        )  # fmt: skip
        self._study, self._stopping, self._told = study, stopping, told
        self._space_asked = space
        self._looks: set[tuple[str, int]] = set()

    def suggest(self, trial_id: str) -> Any:
        """Nothing new once the search is to stop."""
        if self._stopping():
            return Searcher.FINISHED
        proposed = super().suggest(trial_id)
        if trial_id in self._ot_trials:
            self._tell(trial_id, "begins")
        return proposed

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """An intermediate probe."""
        if "looked" in result and (trial_id, result["epoch"]) not in self._looks:
            self._looks.add((trial_id, result["epoch"]))
            self._ot_trials[trial_id].report(result["looked"], result["epoch"])
            self._ot_trials[trial_id].set_user_attr(HASH, result["pretrain_hash"])
            self._tell(trial_id, f"epoch {result['epoch']}", result["looked"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The trial's end goes into the storage."""
        trial = self._ot_trials.get(trial_id)
        if trial is None or trial_id in self._completed_trials:
            return
        self._completed_trials.add(trial_id)
        result = result or {}
        self.on_trial_result(trial_id, result)  # the look at which a trial is given up comes here alone
        how = "died" if error else result.get("how", "collapsed" if result.get("collapsed") else "pruned")
        trial.set_user_attr(HOW, how)
        for name in (HASH, PROBE, DETAIL):
            if value := result.get(name):
                trial.set_user_attr(name, value)
        value, study = result.get("objective"), self._study
        if how == "finished" and value is None:
            how = "without a figure"
            trial.set_user_attr(HOW, how)
        if how == "finished" and value is not None:
            study.tell(trial, value)
        elif how in ("pruned", "collapsed"):
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, state=TrialState.FAIL)
            if how in ("died", "stopped", "busy"):
                study.enqueue_trial(trial.params, user_attrs={AGAIN: trial.number})
        self._tell(trial_id, how, value, result.get("detail", ""), ended=True)

    def _tell(
        self, trial_id: str, how: str, value: float | None = None, detail: str = "", *, ended: bool = False
    ) -> None:
        trial = self._ot_trials[trial_id]
        self._told(News(trial.number, how, value, detail, choices_of(trial.params, self._space_asked), ended))


class News(NamedTuple):
    """What happened to a trial of a search."""

    trial: int
    how: str
    """`begins`, `epoch N` at an intermediate probe, or how it ended: `finished`, `pruned`, `collapsed`, …"""
    value: float | None
    """The probe's figure: k-NN top-1 at an epoch, the objective at the end; percent, held-out training images."""
    detail: str
    choices: dict[str, Any]
    """What was proposed: the search's key → the value, or the named arm's name."""
    ended: bool


Told = Callable[[News], None]


class _GiveUpOnCollapse(tune.Stopper):
    """A collapsed encoder does not come back."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return bool(result.get("collapsed"))

    def stop_all(self) -> bool:
        return False


def run_search(
    space: SearchSpace,
    task: SearchTask,
    capacity: Capacity,
    storage: Any,
    trials: int,
    stop_file: Path,
    stopping: Callable[[], bool],
    told: Told,
) -> optuna.Study:
    """Tries until `trials` count, or the search is to stop; gives the study. What an earlier process did counts."""
    study = open_study(space, storage)
    folder = StudyFolder(Path(task.root), space.name)
    at_once = capacity.trials(task.share)
    left = trials - len(tried(study))
    while left > 0 and not stopping():
        before = len(tried(study))
        with tempfile.TemporaryDirectory(prefix="ray-tune-", dir=folder.path) as scratch:
            tune.Tuner(
                tune.with_resources(tune.with_parameters(search_trial, task=task), trial_resources(task.share)),
                tune_config=tune.TuneConfig(
                    search_alg=_Proposals(space, study, storage, stopping, told),
                    scheduler=_scheduler(space, task),
                    num_samples=left,
                    max_concurrent_trials=at_once,
                ),
                run_config=tune.RunConfig(
                    name=space.name,
                    storage_path=scratch,
                    verbose=0,
                    stop=_GiveUpOnCollapse(),
                    failure_config=tune.FailureConfig(max_failures=ATTEMPTS - 1),
                    callbacks=[AskToStop(stop_file, stopping)],
                ),
            ).fit()
        if len(tried(study)) == before:
            break  # nothing but lost trials: the machines are at fault, and the same command goes on
        left = trials - len(tried(study))
    return study


def _scheduler(space: SearchSpace, task: SearchTask) -> Any:
    if not space.prune:
        return FIFOScheduler()
    config = config_of(space, {}, None if task.data is None else Path(task.data))
    epochs = config.runtime.epochs
    grace = space.grace_epochs or max(config.probe.every_epochs, epochs // 6)
    return AsyncHyperBandScheduler(
        time_attr="epoch", metric="looked", mode="max", max_t=epochs, grace_period=min(grace, epochs),
        reduction_factor=space.reduction,
    )  # fmt: skip
