"""Preparation of a run before its first step: open it, build or restore its state, and begin its folder."""

from pathlib import Path

import torch

from cnnjepa.clock import now
from cnnjepa.data import DataSet, open_data
from cnnjepa.data.augmentation_check import refuse_unfit_augmentations
from cnnjepa.data.held_out import grouped_labels, refuse_undividable, refuse_unlabelled, trained_images
from cnnjepa.data.open import refuse_part_of_a_batch
from cnnjepa.errors import Stopped
from cnnjepa.measuring.cost import method_cost
from cnnjepa.methods import build_method
from cnnjepa.methods.synchronised import synchronise
from cnnjepa.probes.metric import load_metrics
from cnnjepa.schemas import ConfigError, PretrainConfig
from cnnjepa.storage.atomic_files import write_atomically
from cnnjepa.telling import unfailing
from cnnjepa.training.distributed import Processes
from cnnjepa.training.optimizer import build_optimizer
from cnnjepa.training.probed_images import open_probe_sets, probe_fingerprints
from cnnjepa.training.resolve import Identity, identify, resolve
from cnnjepa.training.restore import restore
from cnnjepa.training.run import Run, Session
from cnnjepa.training.run_folder import RunFolder
from cnnjepa.training.run_warnings import run_warnings
from cnnjepa.training.state import RunState
from cnnjepa.training.stopping import StopRequest
from cnnjepa.training.watcher import RunPlan, Watcher
from cnnjepa.warm_start.continuation import continued_checkpoint
from cnnjepa.warm_start.initial_weights import InitialWeights, start_in_words
from cnnjepa.warm_start.starting import with_continued_run, with_initial_weights


def open_run(
    config: PretrainConfig,
    folder: RunFolder,
    session: Session,
    *,
    resume: bool,
    expected_hash: str | None,
    floors: Path | None,
) -> Run:
    """Open the images and resolve the config. Nothing is written. Raises ConfigError on every process for a folder that
    is not free and for images or settings that do not fit, and Stopped if a process was asked to stop."""
    processes, stop, watcher = session
    _leave_if_asked(stop, processes)
    data = _opened(config, folder, resume, processes)
    config = resolve(
        config, data.resident, processes.device, probe_fingerprints(data), data.measured, data.groups_fingerprint
    )
    config, initial = _with_start(config, folder, resume)
    identity = identify(config, data.fingerprint, processes.world_size)
    _refuse_unexpected(identity, expected_hash, config)
    _leave_if_asked(stop, processes)
    shown = watcher if watcher is not None and processes.is_main else Watcher()
    unfailing_watcher = unfailing(lambda: shown, "the display of progress")
    return Run(config, data, identity, folder, processes, stop, unfailing_watcher, initial, floors)


def _with_start(
    config: PretrainConfig, folder: RunFolder, resume: bool
) -> tuple[PretrainConfig, InitialWeights | None]:
    """Return the config with its start resolved, and the encoder's initial weights. A run that continues another takes
    them from that run's copy."""
    config = with_continued_run(config, own=folder if resume and folder.has_checkpoint else None)
    kept = [folder.path] if resume else []
    kept += [config.runtime.continues] if config.runtime.continues else []
    return with_initial_weights(config, kept=kept)


def _leave_if_asked(stop: StopRequest, processes: Processes) -> None:
    """Raise Stopped on every process if one was asked to stop before anything was written."""
    if processes.any(stop.before_training is not None):
        raise Stopped(stop.before_training or "another process was asked to stop")


def _opened(config: PretrainConfig, folder: RunFolder, resume: bool, processes: Processes) -> DataSet:
    """Open the data after checking that the folder is free, and that metrics and augmentations can be used. Every
    process raises the same refusal."""
    processes.on_main(lambda: folder.refuse_unless_free(resume))
    load_metrics(config.probe.metrics)
    refuse_unfit_augmentations(config.views, config.data.channels)
    data = open_data(config.data, config.runtime.batch_size, processes.world_size)
    refuse_unlabelled(config, data.labelled, data.name)
    training = trained_images(config, torch.bincount(data.train.labels).tolist(), grouped_labels(data))
    refuse_part_of_a_batch(data.name, training, config.runtime.batch_size, processes.world_size)
    data.probe_sets = open_probe_sets(config)
    refuse_undividable(config, data)
    if config.probe.metrics and not data.judged_on:
        names = ", ".join(metric.name for metric in config.probe.metrics)
        raise ConfigError(
            f"probe.metrics {names} need labels, and {data.name} has none; probe on a "
            "labelled set with --probe-data PATH, or leave probe.metrics empty"
        )
    return data


def _refuse_unexpected(identity: Identity, expected_hash: str | None, config: PretrainConfig) -> None:
    if expected_hash is not None and identity.pretrain_hash != expected_hash:
        where = config.data.images_path or config.data.source
        raise ConfigError(
            f"this run was planned as {expected_hash[:12]}…, but its settings and images give "
            f"{identity.pretrain_hash[:12]}… here: the images ({where}), the device or the number of processes are not "
            "those it was planned with"
        )


def build_state(run: Run, resume: bool, checkpoint: Path | None) -> RunState:
    """Build the method and its optimizer on the run's device. With `resume`, restore them from the folder's last
    checkpoint or from `checkpoint`. Raises ConfigError for a checkpoint of another config."""
    config, processes = run.config, run.processes
    method = build_method(config, run.data.classes, run.initial.state if run.initial else None)
    cost = method_cost(config, method)
    method.to(processes.device)
    if config.runtime.channels_last:
        method.to(memory_format=torch.channels_last)
    if config.method.synchronises_batch_norm and processes.world_size > 1:
        synchronise(method, processes.device)
    optimizer = build_optimizer(method, config.optimizer)
    state = RunState(method, optimizer, cost, run.identity, run.folder.checkpoints, started=now())
    if resume:
        restore(state, config, run.folder, checkpoint)
    if config.runtime.continues and state.saved_step is None:
        state.continue_from(continued_checkpoint(config, run.identity.settings, run.order.steps_per_epoch))
    return state


def begin_folder(run: Run, state: RunState, resume: bool, checkpoint: Path | None) -> None:
    """Write the description of the run into its folder, on process 0."""
    complete = resume and state.step == run.schedule.total_steps
    probes_only = complete and run.folder.judged(run.identity.pretrain_hash)
    run.folder.begin(run.config, run.software, state.step, probes_only=probes_only)
    if run.initial and not probes_only:
        run.initial.write(run.folder.path)
    run.folder.forget_failure(run.identity.probe_hash)
    if resume and checkpoint is not None:
        # This checkpoint becomes `last.pt` before anything else is written, so that a damaged one never becomes
        # `previous.pt`.
        write_atomically(run.folder.checkpoints / "last.pt", checkpoint.read_bytes())


def plan_of(run: Run, state: RunState) -> RunPlan:
    """Return what the watcher shows before the first step."""
    return RunPlan(
        run_dir=run.folder.path,
        pretrain_hash=run.identity.pretrain_hash,
        epochs=run.config.runtime.epochs,
        steps_per_epoch=run.order.steps_per_epoch,
        first_step=state.step,
        train_images=run.order.images,
        global_batch=run.order.batch_size * run.order.world_size,
        encoder_params=state.cost.encoder_params,
        predictor_params=state.cost.predictor_params,
        flops_per_image=state.cost.flops_per_image,
        visible_share=run.config.visible_share,
        device=str(run.processes.device),
        found=run.data.found,
        warnings=[*run_warnings(run.config, run.data, run.order), *(run.initial.warnings if run.initial else ())],
        start=start_in_words(run.config, run.initial, state.continued_epochs),
    )
