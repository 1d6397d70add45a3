"""The end of a run: probe the trained encoder and write the result."""

import contextlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from cnnjepa.clock import now
from cnnjepa.data import DataSet
from cnnjepa.errors import RunError
from cnnjepa.measuring.cost import MethodCost
from cnnjepa.probes import Assessment, assess
from cnnjepa.probes.assessment import Floor, measured
from cnnjepa.schemas import ContinuedRun, Cost, PretrainConfig, ProbedSet, TrialResult, WarmStart
from cnnjepa.schemas.overrides import flat
from cnnjepa.storage.journal import final_loss, write_hparams
from cnnjepa.training.floor_store import FloorStore
from cnnjepa.training.resolve import Identity
from cnnjepa.training.run import Run
from cnnjepa.training.run_folder import RunFolder
from cnnjepa.training.state import RunState


class Start(NamedTuple):
    """The start of a run's training, as its result records it."""

    warm_start: WarmStart | None
    continues: ContinuedRun | None


def start_of(config: PretrainConfig, warm_start: WarmStart | None, continued_epochs: int | None) -> Start:
    """Return the start of a run with these initial weights, after the epochs of the run that it continues."""
    if continued_epochs is None:
        return Start(warm_start, None)
    return Start(warm_start, ContinuedRun(pretrain_hash=config.runtime.continues_hash, epochs=continued_epochs))


def _known(config: PretrainConfig, data: DataSet, identity: Identity, environment: dict[str, Any]) -> dict[str, Any]:
    return {
        "pretrain_hash": identity.pretrain_hash,
        "probe_hash": identity.probe_hash,
        "method": config.method.name,
        "encoder": config.encoder.short_name,
        "dataset": data.name,
        "seed": config.runtime.seed,
        "train_images": data.train.labels.numel(),
        "val_images": data.val.labels.numel(),
        "probe": config.probe.model_dump(mode="json", exclude=_not_shown(config)),
        "software": in_words(environment),
        "finished": now(),
    }


def _not_shown(config: PretrainConfig) -> set[str]:
    """Return the probe settings that are no part of a result, because it describes the sets themselves."""
    return {"data", "data_fingerprints", *(() if config.probe.held_out_groups else ("held_out_groups",))}


def in_words(environment: dict[str, Any]) -> dict[str, str]:
    """Convert an environment, or the line of a session, to the form used in a result."""
    return {name: str(value) for name, value in environment.items() if name not in ("first_step", "process")}


def trained_on(folder: RunFolder, steps: int, here: dict[str, Any]) -> dict[str, Any]:
    """Return the environment of the last session that performed any of the run's `steps` steps, with every commit as
    `trained_at`. If no such session is known, return `here`, the environment of this session."""
    made = folder.trained_by(steps)
    if made:
        return {**made[-1], "trained_at": folder.trained_at(steps)}
    with contextlib.suppress(RunError):
        earlier = folder.read_result()
        if earlier and earlier.has_figures and earlier.software:
            return dict(earlier.software)
    return {**here, "trained_at": ""}


def run_cost(
    config: PretrainConfig, cost: MethodCost, steps: int, seconds: float, peak_memory: int | None, world_size: int
) -> Cost:
    """Return the computed and measured cost of `steps` steps that took `seconds` of training and `peak_memory` bytes.
    `config` must be resolved as it was trained."""
    images = steps * config.runtime.batch_size * world_size
    gpus = world_size if config.runtime.device == "cuda" else 0
    return Cost(
        encoder_params=cost.encoder_params,
        predictor_params=cost.predictor_params,
        flops_per_image=cost.flops_per_image,
        train_seconds=round(seconds, 3),
        gpu_hours=round(seconds * gpus / 3600, 6),
        images_per_s=round(images / seconds, 3) if seconds else 0.0,
        peak_memory_bytes=peak_memory,
    )


class CompletedTraining(NamedTuple):
    """A training that came to its end, as a result describes it."""

    environment: dict[str, Any]
    """That of the session that trained last; see `trained_on`."""
    cost: Cost
    started: str
    final_loss: float | None
    skipped: list[str]
    """Names of the images that could not be read."""
    repaired: list[str]
    """Names of the damaged images that were repaired while reading."""
    start: Start


def finished_result(
    config: PretrainConfig,
    data: DataSet,
    identity: Identity,
    training: CompletedTraining,
    assessment: Assessment,
    probed_on: dict[str, Any],
) -> TrialResult:
    """Return the result of a run that trained to its end: finished, or collapsed with the evidence. `probed_on` is the
    environment of this session."""
    collapsed = assessment.diagnostics.collapse_evidence is not None
    skipped = {*data.skipped, *training.skipped, *assessment.skipped}
    repaired = {*data.repaired, *training.repaired, *assessment.repaired}
    return TrialResult(
        **_known(config, data, identity, training.environment),
        probe_software=here if (here := in_words(probed_on)).items() - in_words(training.environment).items() else {},
        status="collapsed" if collapsed else "finished",
        epochs=config.trained_epochs,
        final_loss=training.final_loss,
        skipped_images=tuple(sorted(skipped)),
        repaired_images=tuple(sorted(repaired)),
        **training.start._asdict(),
        probed_encoder=config.probed_encoder,
        **_figures(assessment),
        probe_sets=_described(config, data.probe_sets) or None,
        diagnostics=assessment.diagnostics,
        cost=training.cost,
        started=training.started,
    )


def _figures(assessment: Assessment) -> dict[str, Any]:
    """Return the fields of a result with accuracies: plain for one labelled set, by name for several, and None for the
    probes without any."""
    sets = assessment.sets
    if not sets:
        return {"probes": None}
    if len(sets) == 1:
        (only,) = sets.values()
        return only._asdict()
    selections = {name: found.selection for name, found in sets.items() if found.selection}
    return {
        "probes": {name: found.probes for name, found in sets.items()},
        "selection": selections or None,
        "metrics": {f"{name}: {key}": value for name, found in sets.items() for key, value in found.metrics.items()},
        "floors": {name: found.floors for name, found in sets.items()},
    }


def _described(config: PretrainConfig, sets: Mapping[str, DataSet]) -> dict[str, ProbedSet]:
    return {
        name: ProbedSet(
            fingerprint=images.fingerprint,
            classes=images.classes,
            train_images=images.train.labels.numel(),
            val_images=images.val.labels.numel(),
            protocols=config.probe.protocols,
        )
        for name, images in sets.items()
    }


class FailureRecord:
    """Records in the run folder why a run failed."""

    def __init__(self, run: Run) -> None:
        self.started = now()
        """Start time of the run; if it is resumed, that of an earlier session."""
        self._run = run

    def __call__(self, error: str) -> None:
        run = self._run
        run.folder.path.mkdir(parents=True, exist_ok=True)
        known = _known(run.config, run.data, run.identity, run.software)
        run.folder.write_result(TrialResult(**known, status="failed", error=error, started=self.started))


def conclude(run: Run, state: RunState) -> TrialResult:
    """Probe the trained encoder on process 0 and write the result. Every process returns the written result."""
    run.processes.on_main(lambda: _judge_and_write(run, state))
    result = run.folder.read_result(run.identity.probe_hash)
    assert result is not None
    return result


def _judge_and_write(run: Run, state: RunState) -> None:
    network = state.method.probed_encoder(run.config.probed_encoder)

    def floor_of(images: DataSet) -> Floor:
        return measured if run.floors is None else FloorStore(run.floors, run.config, images.probed_fingerprint)

    assessment = assess(
        network,
        run.config,
        run.data,
        run.processes.device,
        run.folder.path,
        run.tick,
        run.watcher.phase,
        floor_of,
        state.method,
        run.initial.state if run.initial else None,
    )
    training = CompletedTraining(
        trained_on(run.folder, state.step, run.software),
        earlier_cost(run.folder, run.identity) or _cost_of(run, state),
        state.started,
        final_loss(run.folder.path, state.step),
        state.skipped,
        state.repaired,
        start_of(run.config, run.initial.described if run.initial else None, state.continued_epochs),
    )
    result = finished_result(run.config, run.data, run.identity, training, assessment, run.software)
    # With further probe settings, TensorBoard keeps the figures of the first.
    if not run.folder.judged(run.identity.pretrain_hash):
        _write_hparams(run, result)
    run.folder.write_result(result)


def earlier_cost(folder: RunFolder, identity: Identity) -> Cost | None:
    """Return the cost of the training as recorded in the run's first result; None if there is no result."""
    with contextlib.suppress(RunError):
        earlier = folder.read_result()
        if earlier and earlier.has_figures and earlier.pretrain_hash == identity.pretrain_hash:
            return earlier.cost
    return None


def _cost_of(run: Run, state: RunState) -> Cost:
    return run_cost(
        run.config, state.cost, state.step, state.train_seconds, state.peak_memory, run.processes.world_size
    )


def _write_hparams(run: Run, result: TrialResult) -> None:
    figures = result.first_set.probes.held_out or result.first_set.probes.published
    outcome = {"hparam/loss": result.final_loss or 0.0}
    if figures and figures.knn_top1 is not None and figures.linear_top1 is not None:
        outcome |= {"hparam/knn_top1": figures.knn_top1, "hparam/linear_top1": figures.linear_top1}
    outcome |= {f"hparam/{name}": value for name, value in result.metrics.items()}
    write_hparams(run.folder.path, run.schedule.total_steps, flat(run.config.model_dump(mode="json")), outcome)
