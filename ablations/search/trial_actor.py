"""One trial of a search, in its Ray actor: the proposed settings become a config, which is trained in the pool."""

import json
import threading
from pathlib import Path
from typing import Any, NamedTuple

from ray import tune

from cnnjepa.ablations.pool import Pool, own_probe
from cnnjepa.ablations.ray_executor import run_on_workers
from cnnjepa.ablations.resources import Resources
from cnnjepa.ablations.search.objective import Objective, objective_of
from cnnjepa.ablations.search.points import resolver_of, trial_record
from cnnjepa.ablations.search.storage import choices_of
from cnnjepa.ablations.study_folder import StudyFolder, TrialRecord
from cnnjepa.ablations.trial_runner import Outcome, forget_notes, run_trial
from cnnjepa.probes.diagnostics import COLLAPSED_RANK, COLLAPSED_STD
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.space import SearchSpace

_LOOK_SECONDS = 0.5


class SearchTask(NamedTuple):
    """Settings that all trials of a search share. They are plain values, because they are sent to other machines."""

    space: str
    """SearchSpace as JSON."""
    data: str | None
    root: str
    resources: Resources
    stop_file: str


def search_trial(params: dict[str, Any], task: SearchTask) -> None:
    """Run a trial. Report `looked` (the figure that stands for the objective) after every intermediate probe, and at
    the end `how` it ended, with the `objective`."""
    space = SearchSpace.model_validate_json(task.space)
    objective = objective_of(space)
    try:
        data = None if task.data is None else Path(task.data)
        resolver = resolver_of(task.resources, Path(task.root))
        record = trial_record(space, choices_of(params, space), data, task.resources, resolver)
    except ConfigError as refusal:
        tune.report({"how": "refused", "detail": str(refusal)})
        return
    run = Pool(Path(task.root)).folder(record.pretrain_hash)
    log = StudyFolder(Path(task.root), space.name).log(record.key)
    done: list[Outcome | BaseException] = []

    def work() -> None:
        try:
            done.append(_train(record, task, run.path, log))
        except BaseException as error:
            done.append(error)

    # In a daemon thread of its own, so that a pruned trial ends with its actor.
    training = threading.Thread(target=work, daemon=True)
    training.start()
    seen = 0
    while training.is_alive():
        training.join(_LOOK_SECONDS)
        seen = _report_looks(run.path / "metrics.jsonl", seen, record, objective)
    (outcome,) = done
    if isinstance(outcome, BaseException):
        raise outcome
    if outcome.status == "stopped" and not Path(task.stop_file).exists():
        raise RuntimeError(f"{outcome.detail}, which the search did not request")  # Tune restarts it
    result = run.read_result(record.probe_hash)
    figure = None if result is None else objective.final(result)
    tune.report(
        {
            "how": outcome.status,
            "detail": outcome.detail,
            "pretrain_hash": record.pretrain_hash,
            "probe_hash": record.probe_hash,
            **({} if figure is None else {"objective": figure}),
        }
    )


def _train(record: TrialRecord, task: SearchTask, run: Path, log: Path) -> Outcome:
    if task.resources.workers == 1:
        forget_notes(log)
        outcome = run_trial(record, run, log, Path(task.stop_file))
        if outcome.status == "died":
            raise RuntimeError(outcome.detail)  # Tune restarts it
        return outcome
    spec = {
        "record": record.model_dump_json(), "run_dir": str(run), "log": str(log), "stop_file": task.stop_file,
        "scratch": str(log.parent),
    }  # fmt: skip
    return run_on_workers(spec, task.resources)


def _report_looks(metrics: Path, seen: int, record: TrialRecord, objective: Objective) -> int:
    """Report the intermediate probes after the first `seen`; return how many there are."""
    try:
        lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        return seen
    probes = [json.loads(line) for line in lines if line.endswith("\n") and '"kind": "probe"' in line]
    for probe in (probe for probe in probes[seen:] if own_probe(probe, record.probe_hash)):
        collapsed = probe["feature_std"] < COLLAPSED_STD or probe["rankme"] < COLLAPSED_RANK
        looked = objective.online(probe)
        tune.report(
            {
                **({} if looked is None else {"looked": looked}),
                "epoch": probe["epoch"],
                "collapsed": collapsed,
                "pretrain_hash": record.pretrain_hash,
            }
        )
    return max(seen, len(probes))
