"""The single entry point of training: from a config to a run folder with a result.

`pretrain` opens the run, `_train` is the loop, and `conclude` probes and writes the result.
"""

import contextlib
import warnings
from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cnnjepa.data.batches import Normalizer, training_batches
from cnnjepa.errors import Stopped
from cnnjepa.methods import Method, StepDraw
from cnnjepa.probes import calibrate, online_probe
from cnnjepa.randomness import layer_randomness, seed_layers
from cnnjepa.schemas import PretrainConfig, TrialResult
from cnnjepa.storage.atomic_files import keep_as
from cnnjepa.storage.journal import AnyJournal, Journal, NullJournal
from cnnjepa.training import distributed
from cnnjepa.training.conclude import FailureRecord, conclude
from cnnjepa.training.distributed import Processes
from cnnjepa.training.environment import forget_peak_memory, peak_memory_bytes
from cnnjepa.training.failures import failing_together
from cnnjepa.training.graphed_step import GraphedStep, graphed_step
from cnnjepa.training.prepare import begin_folder, build_state, open_run, plan_of
from cnnjepa.training.run import Run, Session
from cnnjepa.training.run_folder import RunFolder
from cnnjepa.training.state import RunState
from cnnjepa.training.step import train_step
from cnnjepa.training.stopping import StopRequest
from cnnjepa.training.throughput import ThroughputMeter
from cnnjepa.training.watcher import Watcher

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
        with (
            StopRequest(max_hours, stop_asked) as stop,
            failing_together(processes, config),
            contextlib.ExitStack() as held,
        ):
            session = Session(processes, stop, watcher)
            run = open_run(config, folder, session, resume=resume, expected_hash=expected_hash, floors=floors)
            processes.on_main(lambda: held.enter_context(folder.locked(patience)))
            record = FailureRecord(run)
            with failing_together(processes, run.config, record):
                result = _run(run, record, resume, checkpoint)
        failed = False
        return result
    except Stopped:
        failed = False
        raise
    finally:
        distributed.leave(processes, failed)


def _run(run: Run, record: FailureRecord, resume: bool, checkpoint: Path | None) -> TrialResult:
    done = run.folder.read_result(run.identity.probe_hash) if resume else None
    if done and done.has_figures and (done.pretrain_hash, done.probe_hash) == run.identity[:2]:
        return done
    forget_peak_memory(run.processes.device)
    state = build_state(run, resume, checkpoint)
    record.started = state.started
    graphed = graphed_step(state.method, run.config, run.processes)  # refused before anything is written
    run.processes.wait()  # every process has read the checkpoint before anything is written
    if run.processes.is_main:
        begin_folder(run, state, resume, checkpoint)
    run.watcher.started(plan_of(run, state))
    with layer_randomness(run.processes.device):
        _train(run, state, graphed)
    result = conclude(run, state)
    run.processes.wait()
    return result


def _train(run: Run, state: RunState, graphed: GraphedStep | None) -> None:
    """Run the training loop, from the state's step to the last."""
    config, runtime, processes = run.config, run.config.runtime, run.processes
    device, total = processes.device, run.schedule.total_steps
    if processes.is_main:  # a crash may have occurred between a checkpoint and its further names
        state.keep_best()
        _keep_requested(run, state)
    if config.trained_epochs == 0 and state.saved_step is None:  # a checkpoint holds the encoder that is probed
        if processes.is_main:
            if run.initial is None:  # given weights bring their batch-norm statistics
                calibrate(state.method.probed_encoder(config.probed_encoder), config, run.data, device)
            state.saw_memory(peak_memory_bytes(device))
            state.save()
        return
    if state.step >= total:
        return
    model = _wrapped(state.method, config, processes)
    normalize = Normalizer(config.data, device, runtime.channels_last)
    indices, views = run.order.batch_indices(), config.views
    journal = Journal(run.folder.path, state.step) if processes.is_main else NullJournal()
    state.method.train()
    state.start_clock()
    meter = ThroughputMeter(state, run.order.batch_size * run.order.world_size)
    batches = training_batches(run.training, config.data, run.order, state.step, total, runtime.workers, device, views)
    try:
        for batch in batches:
            processes.refuse_failed()
            step = state.step
            seen = tuple(normalize(view.to(device, non_blocking=True)) for view in batch.views)
            draw = StepDraw(config.grid, indices, runtime.seed, step)
            inputs = state.method.inputs(seen, batch.labels.to(device, non_blocking=True), draw)
            run.schedule.set_rates(state.optimizer, step)
            momentum = run.schedule.momentum(step)
            if momentum is not None:
                state.method.follow(momentum)
            seed_layers(runtime.seed, "layers", step, processes.rank)
            stepped = train_step(model, state.optimizer, inputs, config, processes, graphed)
            for name in set(batch.skipped) - set(state.skipped):
                run.watcher.warned(f"skipped: {name}")
            for name in set(batch.repaired) - set(state.repaired):
                run.watcher.warned(name)
            state.count(stepped.loss, batch.skipped, batch.repaired)
            run.watcher.stepped(state.step)

            epoch, into_epoch = divmod(state.step, run.order.steps_per_epoch)
            epoch_ends = into_epoch == 0
            if state.step % runtime.log_every_steps == 0 or state.step == total:
                _log(run, state, journal, meter, stepped.scalars)
            if epoch_ends and _due(epoch, runtime.images_every_epochs, runtime.epochs):
                shown = tuple(normalize.undo(view[:8]) for view in seen)
                journal.images(state.step, shown, state.method.masks(*inputs))
            if epoch_ends and epoch < runtime.epochs and _due(epoch, config.probe.every_epochs):
                _probe_online(run, state, journal)
                meter.restart()
            if epoch_ends or state.step % runtime.checkpoint_every_steps == 0:
                _save(run, state, journal)
            _stop_if_asked(run, state, journal)
    finally:
        batches.close()
        state.stop_clock()
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


def _due(epoch: int, every: int, last: int | None = None) -> bool:
    return every > 0 and (epoch % every == 0 or epoch == last)


def _log(run: Run, state: RunState, journal: AnyJournal, meter: ThroughputMeter, scalars: dict[str, Tensor]) -> None:
    """Log a line about the steps since the previous one. The method's `scalars` are those of the last step, so that a
    line does not depend on where a run was resumed."""
    losses = state.losses()  # waits for the device, so that the clock counts finished steps
    momentum = run.schedule.momentum(state.step - 1)
    line = {
        "epoch": round(state.step / run.order.steps_per_epoch, 4),
        "loss": sum(losses) / len(losses),
        "lr": run.schedule.lr(state.step - 1),
        **({} if momentum is None else {"ema": momentum}),
        **{name: float(value) for name, value in scalars.items()},
        "images_per_s": round(meter.read(), 2),
        "seconds": round(state.train_seconds, 3),
        **({"skipped": len(state.skipped)} if run.config.data.on_error == "skip" else {}),
    }
    journal.write("train", state.step, line)
    run.watcher.logged("train", {"step": state.step, **line})
    state.new_window()


def _probe_online(run: Run, state: RunState, journal: AnyJournal) -> None:
    """Run the online probe on process 0 while the others wait."""
    state.losses()
    state.stop_clock()

    def probe() -> None:
        device = run.processes.device
        state.saw_memory(peak_memory_bytes(device))
        run.watcher.phase("probing")
        network = state.method.probed_encoder(run.config.probed_encoder)
        # Not stopped part-way: the checkpoint that follows needs the figure.
        seen = online_probe(network, run.config, run.data, device, run.folder.path, method=state.method)
        forget_peak_memory(device)
        # Runs that differ only in their probes share this file; the name says to which probe the figure belongs.
        whose = {"probe_hash": run.identity.probe_hash}
        figures = {name: value for name, value in seen._asdict().items() if value is not None}
        line = {"epoch": state.step // run.order.steps_per_epoch, **figures, **whose}
        journal.write("probe", state.step, line)
        run.watcher.logged("probe", {"step": state.step, **line})
        if state.best is None or seen.figure > state.best[0]:
            state.best = (seen.figure, state.step)

    run.processes.on_main(probe)
    state.start_clock()


def _save(run: Run, state: RunState, journal: AnyJournal) -> None:
    """Write a checkpoint on process 0. Log lines up to its step are on disk before it."""
    if state.saved_step == state.step:
        return
    state.skipped, state.repaired = (run.processes.union(names) for names in (state.skipped, state.repaired))
    state.losses()

    def write() -> None:
        journal.sync()
        state.saw_memory(peak_memory_bytes(run.processes.device))
        state.save()
        _keep_requested(run, state)

    run.processes.on_main(write)
    state.saved_step = state.step


def _keep_requested(run: Run, state: RunState) -> None:
    """Link `last.pt` as `epoch_N.pt` too if it ends an epoch whose checkpoint is to be kept."""
    epoch, into_epoch = divmod(state.step, run.order.steps_per_epoch)
    if into_epoch == 0 and epoch in run.config.runtime.keep_epochs and state.saved_step == state.step:
        keep_as(run.folder.checkpoints / "last.pt", f"epoch_{epoch}.pt")


def _stop_if_asked(run: Run, state: RunState, journal: AnyJournal) -> None:
    if run.processes.world_size > 1 and state.step % _AGREE_EVERY_STEPS and state.step < run.schedule.total_steps:
        return
    if run.processes.any(run.stop.reason is not None):
        _save(run, state, journal)
        raise Stopped(run.stop.reason or "another process was asked to stop")
