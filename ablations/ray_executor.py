"""Executor that runs trials as Ray Tune trials, on a cluster or on this machine's cores and GPUs."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune
from ray.train import TrainingFailedError
from ray.tune.callback import Callback
from ray.tune.search import Searcher

from cnnjepa.ablations.driver import OnOutcome
from cnnjepa.ablations.pool import Pool
from cnnjepa.ablations.resources import Capacity, Resources
from cnnjepa.ablations.study_folder import StudyFolder, TrialRecord
from cnnjepa.ablations.trial_runner import ATTEMPTS, Outcome, forget_notes, given_up, recorded_note, run_trial
from cnnjepa.training.distributed import PATIENCE


class RayExecutor:
    """Executor in which every trial takes `resources` of the cluster. Several processes per trial run through
    Ray Train."""

    def __init__(self, folder: StudyFolder, pool: Pool, resources: Resources, capacity: Capacity) -> None:
        self._folder, self._pool, self._resources = folder, pool, resources
        self._at_once = capacity.trials(resources)

    def run(
        self, records: list[TrialRecord], stop_file: Path, stopping: Callable[[], bool], on_outcome: OnOutcome
    ) -> None:
        """Run the trials as LocalExecutor.run does. A trial whose process or machine is lost is restarted elsewhere
        from its checkpoint, with at most three attempts in all."""
        specs = [self._spec(record, stop_file) for record in records]
        queue = _Queue(records, specs, stopping, on_outcome)
        # Tune keeps its own record in a scratch folder. It is not needed, because the pool records which trials are
        # done.
        with tempfile.TemporaryDirectory(prefix="ray-tune-", dir=self._folder.path.resolve()) as scratch:
            tune.Tuner(
                tune.with_resources(ray_trial, trial_resources(self._resources)),
                tune_config=tune.TuneConfig(
                    search_alg=queue, num_samples=len(records), max_concurrent_trials=self._at_once
                ),
                run_config=tune.RunConfig(
                    name=self._folder.name,
                    storage_path=scratch,
                    verbose=0,
                    failure_config=tune.FailureConfig(max_failures=ATTEMPTS - 1),
                    callbacks=[AskToStop(stop_file, stopping)],
                ),
            ).fit()

    def _spec(self, record: TrialRecord, stop_file: Path) -> dict[str, Any]:
        return {
            "record": record.model_dump_json(),
            "run_dir": str(self._pool.folder(record.pretrain_hash).path.resolve()),
            "log": str(self._folder.log(record.key).resolve()),
            "stop_file": str(stop_file.resolve()),
            "scratch": str(self._folder.path.resolve()),
            "resources": self._resources._asdict(),
        }


def trial_resources(resources: Resources) -> Any:
    """Return the resources of a trial's actor. With one process, the actor is the process itself. With several, the
    actor only waits for them, so it takes no CPU or GPU (one byte of memory, since Tune refuses an empty request); Ray
    Train reserves the resources of the processes."""
    return tune.PlacementGroupFactory([resources.per_process if resources.workers == 1 else {"memory": 1}])


class NotKept:
    """Mixin that pickles as nothing. Tune pickles searchers and callbacks to resume from them; here, the pool is
    resumed."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: this method would write the searcher's part of Tune's record."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""


class AskToStop(NotKept, Callback):
    """Callback that passes a request to stop on to the running trials."""

    def __init__(self, stop_file: Path, stopping: Callable[[], bool]) -> None:
        self._stop_file, self._stopping = stop_file, stopping

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Touch the stop file if the study is to stop. Tune calls this method many times per second."""
        if self._stopping():
            self._stop_file.touch()


class _Queue(NotKept, Searcher):
    """Searcher that hands Tune the planned trials one by one, and no more once the study is to stop."""

    def __init__(
        self,
        records: list[TrialRecord],
        specs: list[dict[str, Any]],
        stopping: Callable[[], bool],
        on_outcome: OnOutcome,
    ) -> None:
        super().__init__()
        self._left = list(zip(records, specs, strict=True))
        self._stopping, self._on_outcome = stopping, on_outcome
        self._given: dict[str, tuple[TrialRecord, dict[str, Any]]] = {}

    def suggest(self, trial_id: str) -> Any:
        """Return the next trial's spec."""
        if self._stopping() or not self._left:
            return Searcher.FINISHED
        self._given[trial_id] = self._left.pop(0)
        return {"spec": self._given[trial_id][1]}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Report the outcome of a trial."""
        record, spec = self._given[trial_id]
        if error or not result:
            log = Path(spec["log"])
            outcome = given_up(record, Path(spec["run_dir"]), log) or Outcome(
                "died", f"it ended {ATTEMPTS} times without a result; its log is {log}"
            )
        else:
            outcome = Outcome(result["status"], result["detail"])
        self._on_outcome(record, outcome)


def ray_trial(config: dict[str, Any]) -> None:
    """Run one trial inside Tune, on any machine."""
    spec = config["spec"]
    resources = Resources(**spec["resources"])
    outcome = _alone(spec) if resources.workers == 1 else run_on_workers(spec, resources)
    if outcome.status == "died":
        raise RuntimeError(outcome.detail)  # Tune restarts it
    if outcome.status == "stopped" and not Path(spec["stop_file"]).exists():
        raise RuntimeError(f"{outcome.detail}, which the study did not request")  # Tune restarts it
    tune.report({"status": outcome.status, "detail": outcome.detail})


def _alone(spec: dict[str, Any]) -> Outcome:
    record = TrialRecord.model_validate_json(spec["record"])
    if record.world_size == 1:
        forget_notes(Path(spec["log"]))
    return run_trial(record, Path(spec["run_dir"]), Path(spec["log"]), Path(spec["stop_file"]))


def run_on_workers(spec: dict[str, Any], resources: Resources) -> Outcome:
    """Run the trial in several processes, joined by torch.distributed through Ray Train; return the first one's
    outcome. Raises when one of them is lost: Ray Train has then ended the others."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    # The folder is on storage that all machines share: Ray Train refuses anything else.
    with tempfile.TemporaryDirectory(prefix="ray-train-", dir=spec["scratch"]) as scratch:
        trainer = TorchTrainer(
            _together,  # type: ignore[arg-type]  # its return value is `return_value` below
            train_loop_config=spec,
            torch_config=TorchConfig(timeout_s=int(PATIENCE.total_seconds())),
            scaling_config=ScalingConfig(
                num_workers=resources.workers, use_gpu=resources.gpus > 0, resources_per_worker=resources.per_process
            ),
            run_config=RunConfig(name="trial", storage_path=scratch, failure_config=FailureConfig(max_failures=0)),
        )
        log = Path(spec["log"])
        forget_notes(log)
        try:
            outcome: Outcome = trainer.fit().return_value  # type: ignore[attr-defined]
        except TrainingFailedError:
            record = TrialRecord.model_validate_json(spec["record"])
            why = recorded_note(record, Path(spec["run_dir"]), log)
            if why is None:
                raise  # the process was lost; the trial itself did not fail
            return Outcome("failed", why)
    return outcome


def _together(spec: dict[str, Any]) -> Outcome:
    """Run one process of a distributed trial. A failure is raised, so that Ray Train ends the others, which would
    wait."""
    outcome = _alone(spec)
    if outcome.status in ("failed", "died"):
        raise RuntimeError(outcome.detail)
    return outcome
