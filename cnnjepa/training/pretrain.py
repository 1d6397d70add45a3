"""The single entry point of training: from a config to a run folder with a result.

`pretrain` prepares the run, `_train` is the loop, and `conclude` probes and writes the result.
"""

import contextlib
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cnnjepa.clock import now
from cnnjepa.data import DataSet, open_data
from cnnjepa.data.augmentation_check import refuse_unfit_augmentations
from cnnjepa.data.batches import Normalizer, Order, training_batches
from cnnjepa.data.held_out import trained_images, training_set
from cnnjepa.data.open import refuse_part_of_a_batch
from cnnjepa.errors import Stopped
from cnnjepa.measuring.cost import method_cost
from cnnjepa.methods import Method, StepDraw, build_method
from cnnjepa.methods.synchronised import synchronise
from cnnjepa.probes import calibrate, glance
from cnnjepa.probes.metric import load_metrics
from cnnjepa.randomness import layer_randomness, seed_layers
from cnnjepa.schemas import ConfigError, PretrainConfig, TrialResult
from cnnjepa.storage.atomic_files import keep_as, write_atomically
from cnnjepa.storage.journal import Journal
from cnnjepa.telling import unfailing
from cnnjepa.training import distributed
from cnnjepa.training.conclude import FailureRecord, conclude
from cnnjepa.training.distributed import Processes
from cnnjepa.training.environment import environment, forget_peak_memory, peak_memory_bytes
from cnnjepa.training.failures import failing_together
from cnnjepa.training.optimizer import build_optimizer
from cnnjepa.training.resolve import Identity, identify, resolve
from cnnjepa.training.restore import restore
from cnnjepa.training.run import Run
from cnnjepa.training.run_folder import RunFolder
from cnnjepa.training.run_warnings import run_warnings
from cnnjepa.training.schedule import Schedule
from cnnjepa.training.state import RunState
from cnnjepa.training.step import train_step
from cnnjepa.training.stopping import StopRequest
from cnnjepa.training.watcher import RunPlan, Watcher

# Number of steps between agreements of the processes on whether to stop: an agreement waits for the device.
_AGREE_EVERY_STEPS = 10


def pretrain(
    config: PretrainConfig,
    run_dir: str | Path,
    *,
    resume: bool = False,
    checkpoint: Path | None = None,
    max_hours: float | None = None,
    watcher: Watcher | None = None,
    stop_asked: Callable[[], str | None] | None = None,
    patience: float = 1.0,
    expected_hash: str | None = None,
    floors: Path | None = None,
) -> TrialResult:
    """Train and probe as `config` says, and write a run folder. Returns the result (status finished or collapsed).

    With `resume`, the run continues from the folder's last checkpoint (or from `checkpoint`) if there is one, and
    starts from the beginning otherwise. A finished run is returned as it is, or probed again if only the probe settings
    changed. Under torchrun every process makes the same call. `stop_asked` is a further reason to stop, called after
    every step. `patience` is the number of seconds that another process may take to leave the folder. `expected_hash`
    is the pretrain_hash with which the run was planned; a run with another hash (because the images differ) is refused.
    `floors` is a folder that runs share, so that a floor is measured once for all of them.

    Raises ConfigError for a wrong request (nothing is written or lost); Stopped after a signal or `max_hours`, with a
    checkpoint written (a signal before training leaves the folder as it was); RunError if something fails while
    running.
    """
    folder = RunFolder(Path(run_dir))
    processes = distributed.join(config.runtime)
    failed = True
    try:
        with StopRequest(max_hours, stop_asked) as stop, failing_together(processes, config):
            _leave_if_asked(stop, processes)
            data = _opened(config, folder, resume, processes)
            config = resolve(config, data.resident, processes.device)
            identity = identify(config, data.fingerprint, processes.world_size)
            _refuse_unexpected(identity, expected_hash, config)
            _leave_if_asked(stop, processes)
            shown = watcher if watcher is not None and processes.is_main else Watcher()
            told = unfailing(lambda: shown, "the display of progress")
            with contextlib.ExitStack() as held:
                processes.on_main(lambda: held.enter_context(folder.locked(patience)))
                record = FailureRecord(config, data, identity, folder, processes)
                with failing_together(processes, config, record):
                    result = _run(
                        config, data, identity, folder, processes, resume, checkpoint, stop, told, floors, record
                    )
        failed = False
        return result
    except Stopped:
        failed = False
        raise
    finally:
        distributed.leave(processes, failed)


def _leave_if_asked(stop: StopRequest, processes: Processes) -> None:
    """Raise Stopped on every process if one was asked to stop before anything was written."""
    if processes.any(stop.before_training is not None):
        raise Stopped(stop.before_training or "another process was asked to stop")


def _opened(config: PretrainConfig, folder: RunFolder, resume: bool, processes: Processes) -> DataSet:
    """Open the data after checking that the folder is free, and that metrics and augmentations can be used. Every
    process raises the same refusal."""
    processes.on_main(lambda: folder.refuse_unless_free(resume))
    load_metrics(config.probe.metrics)
    refuse_unfit_augmentations(config.views)
    data = open_data(config.data, config.runtime.batch_size, processes.world_size)
    training = trained_images(config, torch.bincount(data.train.labels).tolist())
    refuse_part_of_a_batch(data.name, training, config.runtime.batch_size, processes.world_size)
    return data


def _refuse_unexpected(identity: Identity, expected_hash: str | None, config: PretrainConfig) -> None:
    if expected_hash is not None and identity.pretrain_hash != expected_hash:
        where = config.data.images_path or config.data.source
        raise ConfigError(
            f"this run was planned as {expected_hash[:12]}…, but its settings and images give "
            f"{identity.pretrain_hash[:12]}… here: the images ({where}), the device or the number of processes are not "
            "those it was planned with"
        )


def _run(
    config: PretrainConfig,
    data: DataSet,
    identity: Identity,
    folder: RunFolder,
    processes: Processes,
    resume: bool,
    checkpoint: Path | None,
    stop: StopRequest,
    watcher: Watcher,
    floors: Path | None,
    record: FailureRecord,
) -> TrialResult:
    runtime = config.runtime
    done = folder.read_result(identity.probe_hash) if resume else None
    if done and done.has_figures and (done.pretrain_hash, done.probe_hash) == identity[:2]:
        return done

    forget_peak_memory(processes.device)
    method = build_method(config, data.classes)
    cost = method_cost(config, method)
    method.to(processes.device)
    if runtime.channels_last:
        method.to(memory_format=torch.channels_last)
    if config.method.synchronises_batch_norm and processes.world_size > 1:
        synchronise(method, processes.device)
    optimizer = build_optimizer(method, config.optimizer)
    training = training_set(config, data)
    order = Order(training.train.labels.numel(), runtime.batch_size, processes.rank, processes.world_size, runtime.seed)
    schedule = Schedule(config, order.steps_per_epoch)
    state = RunState(method, optimizer, identity, folder.checkpoints, started=now())
    if resume:
        restore(state, config, folder, checkpoint)
    record.started = state.started
    software = environment(processes)
    processes.wait()  # every process has read the checkpoint before anything is written
    if processes.is_main:
        complete = resume and state.step == schedule.total_steps
        folder.begin(config, software, state.step, probes_only=complete and folder.judged(identity.pretrain_hash))
        folder.forget_failure(identity.probe_hash)
        if resume and checkpoint is not None:
            # This checkpoint becomes `last.pt` before anything else is written, so that a damaged one never becomes
            # `previous.pt`.
            write_atomically(folder.checkpoints / "last.pt", checkpoint.read_bytes())

    run = Run(
        config, data, training, identity, folder, processes, order, schedule, cost, software, stop, watcher, floors
    )
    watcher.started(_plan(run, state))
    with layer_randomness(processes.device):
        _train(run, state)
    result = conclude(run, state)
    processes.wait()
    return result


def _plan(run: Run, state: RunState) -> RunPlan:
    return RunPlan(
        run_dir=run.folder.path,
        pretrain_hash=run.identity.pretrain_hash,
        epochs=run.config.runtime.epochs,
        steps_per_epoch=run.order.steps_per_epoch,
        first_step=state.step,
        train_images=run.order.images,
        global_batch=run.order.batch_size * run.order.world_size,
        encoder_params=run.cost.encoder_params,
        predictor_params=run.cost.predictor_params,
        flops_per_image=run.cost.flops_per_image,
        visible_share=run.config.visible_share,
        device=str(run.processes.device),
        warnings=run_warnings(run.config, run.data, run.order),
    )


def _train(run: Run, state: RunState) -> None:
    """Run the training loop, from the state's step to the last."""
    config, runtime, processes = run.config, run.config.runtime, run.processes
    device, total = processes.device, run.schedule.total_steps
    if processes.is_main:  # a crash may have occurred between a checkpoint and its further names
        state.keep_best()
        _keep_asked(run, state)
    if config.trained_epochs == 0 and state.saved_step is None:  # a checkpoint holds the encoder that is probed
        if processes.is_main:
            calibrate(state.method.probed_encoder(config.probed_encoder), config, run.data, device)
            state.saw_memory(peak_memory_bytes(device))
            state.save()
        return
    if state.step >= total:
        return
    model = _wrapped(state.method, config, processes)
    normalize = Normalizer(config.data, device, runtime.channels_last)
    slots = run.order.slots()
    journal = Journal(run.folder.path, state.step) if processes.is_main else None
    state.method.train()
    state.start_clock()
    mark = (state.step, state.train_seconds)
    views = config.views
    batches = training_batches(run.training, config.data, run.order, state.step, total, runtime.workers, device, views)
    try:
        for batch in batches:
            processes.refuse_failed()
            step = state.step
            seen = tuple(normalize(view.to(device, non_blocking=True)) for view in batch.views)
            draw = StepDraw(config.grid, slots, runtime.seed, step)
            inputs = state.method.inputs(seen, batch.labels.to(device, non_blocking=True), draw)
            run.schedule.set_rates(state.optimizer, step)
            momentum = run.schedule.momentum(step)
            if momentum is not None:
                state.method.follow(momentum)
            seed_layers(runtime.seed, "layers", step, processes.rank)
            stepped = train_step(model, state.optimizer, inputs, config, processes)
            for name in set(batch.skipped) - set(state.skipped):
                run.watcher.warned(f"skipped: {name}")
            state.count(stepped.loss, batch.skipped)
            run.watcher.stepped(state.step)

            epoch, into_epoch = divmod(state.step, run.order.steps_per_epoch)
            epoch_ends = into_epoch == 0
            if state.step % runtime.log_every_steps == 0 or state.step == total:
                mark = _log(run, state, journal, mark, stepped.scalars)
            if journal and epoch_ends and _due(epoch, runtime.images_every_epochs, runtime.epochs):
                shown = tuple(normalize.undo(view[:8]) for view in seen)
                journal.images(state.step, shown, state.method.masks(*inputs))
            if epoch_ends and epoch < runtime.epochs and _due(epoch, config.probe.every_epochs):
                _glance(run, state, journal)
                mark = (state.step, state.train_seconds)
            if epoch_ends or state.step % runtime.checkpoint_every_steps == 0:
                _save(run, state, journal)
                if processes.is_main:
                    _keep_asked(run, state)
            _stop_if_asked(run, state, journal)
    finally:
        batches.close()
        state.stop_clock()
        if journal:
            journal.close()


def _wrapped(method: Method, config: PretrainConfig, processes: Processes) -> nn.Module:
    if config.runtime.compile:
        for module in method.compiled():
            module.compile()
    if processes.world_size == 1:
        return method
    with warnings.catch_warnings():
        # torch 2.14 deprecates the argument. Its replacement copies rank 0's running statistics to every process at the
        # start, but each process keeps its own, also in a resumed run.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        # Without device_ids, which would move the masks that must stay in host memory.
        return DistributedDataParallel(method, broadcast_buffers=False)


def _keep_asked(run: Run, state: RunState) -> None:
    """Link `last.pt` as `epoch_N.pt` too if it ends an epoch whose checkpoint is to be kept."""
    epoch, into_epoch = divmod(state.step, run.order.steps_per_epoch)
    if into_epoch == 0 and epoch in run.config.runtime.keep_epochs and state.saved_step == state.step:
        keep_as(run.folder.checkpoints / "last.pt", f"epoch_{epoch}.pt")


def _due(epoch: int, every: int, last: int | None = None) -> bool:
    return every > 0 and (epoch % every == 0 or epoch == last)


def _log(
    run: Run, state: RunState, journal: Journal | None, mark: tuple[int, float], scalars: dict[str, Tensor]
) -> tuple[int, float]:
    """Log a line about the interval since `mark`, (step, training seconds), and return the new mark. The method's
    `scalars` are those of the last step, so that a line does not depend on where a run was resumed."""
    losses = state.losses()
    seconds = state.train_seconds - mark[1]
    images = (state.step - mark[0]) * run.order.batch_size * run.order.world_size
    line = {
        "epoch": round(state.step / run.order.steps_per_epoch, 4),
        "loss": sum(losses) / len(losses),
        "lr": run.schedule.lr(state.step - 1),
        **({} if (momentum := run.schedule.momentum(state.step - 1)) is None else {"ema": momentum}),
        **{name: float(value) for name, value in scalars.items()},
        "images_per_s": round(images / seconds, 2),
        "seconds": round(state.train_seconds, 3),
        **({"skipped": len(state.skipped)} if run.config.data.on_error == "skip" else {}),
    }
    if journal:
        journal.write("train", state.step, line)
    run.watcher.logged("train", {"step": state.step, **line})
    state.new_window()
    return state.step, state.train_seconds


def _glance(run: Run, state: RunState, journal: Journal | None) -> None:
    """Run the online probe on process 0 while the others wait."""
    state.losses()
    state.stop_clock()

    def look() -> None:
        assert journal
        device = run.processes.device
        state.saw_memory(peak_memory_bytes(device))
        run.watcher.phase("probing")
        network = state.method.probed_encoder(run.config.probed_encoder)
        # Not stopped part-way: the checkpoint that follows needs the figure.
        seen = glance(network, run.config, run.data, device, run.folder.path)
        forget_peak_memory(device)
        # Runs that differ only in their probes share this file; the name says to which probe the figure belongs.
        whose = {"probe_hash": run.identity.probe_hash}
        line = {"epoch": state.step // run.order.steps_per_epoch, **seen._asdict(), **whose}
        journal.write("probe", state.step, line)
        run.watcher.logged("probe", {"step": state.step, **line})
        if state.best is None or seen.knn_top1 > state.best[0]:
            state.best = (seen.knn_top1, state.step)

    run.processes.on_main(look)
    state.start_clock()


def _save(run: Run, state: RunState, journal: Journal | None) -> None:
    """Write a checkpoint on process 0. Log lines up to its step are on disk before it."""
    if state.saved_step == state.step:
        return
    state.skipped = run.processes.union(state.skipped)
    state.losses()

    def write() -> None:
        assert journal
        journal.sync()
        state.saw_memory(peak_memory_bytes(run.processes.device))
        state.save()

    run.processes.on_main(write)
    state.saved_step = state.step


def _stop_if_asked(run: Run, state: RunState, journal: Journal | None) -> None:
    if run.processes.world_size > 1 and state.step % _AGREE_EVERY_STEPS and state.step < run.schedule.total_steps:
        return
    if run.processes.any(run.stop.reason is not None):
        _save(run, state, journal)
        raise Stopped(run.stop.reason or "another process was asked to stop")
