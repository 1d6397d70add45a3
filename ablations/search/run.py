"""A search as Ray Tune trials: OptunaSearch proposes, ASHA prunes, the storage records."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from cnnjepa.ablations.pool import Pool
from cnnjepa.ablations.ray_executor import AskToStop, NotKept, trial_resources
from cnnjepa.ablations.resources import Capacity
from cnnjepa.ablations.search.objective import objective_of
from cnnjepa.ablations.search.points import config_of, resolver_of, trial_record
from cnnjepa.ablations.search.proposals import OnNews, Proposals
from cnnjepa.ablations.search.settled_points import RunName
from cnnjepa.ablations.search.storage import choices_of, distributions, open_study
from cnnjepa.ablations.search.trial_actor import SearchTask, search_trial
from cnnjepa.ablations.study_folder import StudyFolder, TrialRecord
from cnnjepa.ablations.trial_runner import ATTEMPTS, Outcome, given_up
from cnnjepa.schemas.space import SearchSpace


class _Searcher(NotKept, OptunaSearch):
    """Tune's interface to the proposals: an OptunaSearch whose trials come from `Proposals`, which also records how
    they end."""

    def __init__(
        self,
        space: SearchSpace,
        storage: Any,
        proposals: Proposals,
        stopping: Callable[[], bool],
        lost: Callable[[dict[str, Any]], Outcome],
    ) -> None:
        """Set up the searcher. `lost` returns the outcome of a point (the search's key → value) whose process died at
        every attempt."""
        super().__init__(
            space=distributions(space),
            metric="objective",
            mode=objective_of(space).mode,
            study_name=space.name,
            storage=storage,
        )
        self._proposals, self._stopping, self._lost = proposals, stopping, lost
        self._searched = space
        self._looks: set[tuple[int, int]] = set()

    def suggest(self, trial_id: str) -> Any:
        """Return the next trial's settings; nothing new once the search is to stop."""
        if self._stopping():
            return Searcher.FINISHED
        trial = self._proposals.next()
        if trial is None:
            return Searcher.FINISHED if self._proposals.over else None
        self._ot_trials[trial_id] = trial
        return super().suggest(trial_id)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Record an intermediate probe."""
        trial = self._ot_trials[trial_id]
        if "looked" in result and (trial.number, result["epoch"]) not in self._looks:
            self._looks.add((trial.number, result["epoch"]))
            self._proposals.looked(trial, result["looked"], result["epoch"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Record the trial's end in the storage. A trial that was given up is PRUNED there, not COMPLETE with its last
        intermediate figure as in OptunaSearch."""
        if trial_id not in self._ot_trials or trial_id in self._completed_trials:
            return
        self._completed_trials.add(trial_id)
        result = result or {}
        self.on_trial_result(trial_id, result)  # the probe at which a trial is given up arrives only here
        trial = self._ot_trials[trial_id]
        if error:
            outcome = self._lost(choices_of(trial.params, self._searched))
            self._proposals.end(trial, outcome.status, detail=outcome.detail)
            return
        how = result.get("how", "collapsed" if result.get("collapsed") else "pruned")
        self._proposals.end(trial, how, result.get("objective"), result.get("detail", ""))


class _GiveUpOnCollapse(tune.Stopper):
    """Stopper of collapsed trials: a collapsed encoder does not recover."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return bool(result.get("collapsed"))

    def stop_all(self) -> bool:
        return False


class Ending(NamedTuple):
    """The end of a search."""

    study: optuna.Study
    machines_fail: bool
    """True if it ended because the processes of several consecutive trials died."""


def run_search(
    space: SearchSpace,
    task: SearchTask,
    capacity: Capacity,
    storage: Any,
    trials: int,
    stop_file: Path,
    stopping: Callable[[], bool],
    on_news: OnNews,
) -> Ending:
    """Run trials until `trials` of them count, the space has no other point, or the search is to stop. Trials of
    earlier processes count. A trial whose process or machine is lost is resumed from its checkpoint, with three
    attempts in all."""
    pool, folder = Pool(Path(task.root)), StudyFolder(Path(task.root), space.name)
    study = open_study(space, storage, pool)
    data, resolver = None if task.data is None else Path(task.data), resolver_of(task.resources, Path(task.root))

    def record_of(choices: dict[str, Any]) -> TrialRecord:
        return trial_record(space, choices, data, task.resources, resolver)

    def lost(choices: dict[str, Any]) -> Outcome:
        record = record_of(choices)
        known = given_up(record, pool.folder(record.pretrain_hash).path, folder.log(record.key))
        return known or Outcome("died")

    proposals = Proposals(
        study, space, trials, lambda choices: RunName(*record_of(choices).key), lambda run: pool.folder(run).holder(),
        on_news,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="ray-tune-", dir=folder.path) as scratch:
        tune.Tuner(
            tune.with_resources(tune.with_parameters(search_trial, task=task), trial_resources(task.resources)),
            tune_config=tune.TuneConfig(
                search_alg=_Searcher(space, storage, proposals, stopping, lost),
                scheduler=_scheduler(space, task),
                num_samples=-1,  # the searcher decides when the search is over
                max_concurrent_trials=capacity.trials(task.resources),
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
    proposals.close()
    return Ending(study, proposals.machines_fail)


def _scheduler(space: SearchSpace, task: SearchTask) -> Any:
    if not space.prune:
        return FIFOScheduler()
    config = config_of(space, {}, None if task.data is None else Path(task.data))
    epochs = config.runtime.epochs
    grace = space.grace_epochs or max(config.probe.every_epochs, epochs // 6)
    mode = objective_of(space).mode
    return AsyncHyperBandScheduler(
        time_attr="epoch", metric="looked", mode=mode, max_t=epochs, grace_period=min(grace, epochs),
        reduction_factor=space.reduction,
    )  # fmt: skip
