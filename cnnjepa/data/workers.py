"""Loader processes: how they start, pass on batches and end, and the error for one that dies."""

import errno
import pickle
import re
import resource
import shutil
import signal
import threading
from collections.abc import Callable, Generator
from multiprocessing.connection import wait
from multiprocessing.queues import Queue
from typing import Any, TypeVar

from torch.utils.data import DataLoader, Dataset

from cnnjepa.cpus import usable_cpus
from cnnjepa.errors import ProcessLostError, RunError
from cnnjepa.schemas import ConfigError
from cnnjepa.signals import STOPPING
from cnnjepa.socket_paths import shorten_temporary_paths

T = TypeVar("T")

# Seconds that loader processes may take to finish a batch that will not be read. Assumption.
_PATIENCE = 2.0
_END = object()


def usable_workers(asked: int) -> int:
    """Return the number of loader processes to start: at most the number of CPUs that this process may use. The number
    changes no batch."""
    return min(asked, usable_cpus())


def load_batches(dataset: Dataset[T], workers: int, ahead: int = 2, **options: Any) -> Generator[T]:
    """Yield the batches of a data set whose `__getitems__` returns whole batches. They are loaded in `workers`
    processes (0 means in this process); each works up to `ahead` batches in advance. `options` are DataLoader's.

    The processes end with the iteration, within seconds. Close the iterator when an error ends it early, because a
    traceback would keep it alive. A RunError or ConfigError that `__getitems__` returns is raised here. Raises
    ProcessLostError with the cause and a remedy when a loader process dies, cannot be started, or cannot pass on its
    batch.
    """
    count = usable_workers(workers)
    if count:
        shorten_temporary_paths()
    batches: Any = None
    try:
        # `iter` starts the processes.
        batches = _explained(
            lambda: iter(
                DataLoader(
                    dataset,
                    num_workers=count,
                    collate_fn=_whole,
                    prefetch_factor=ahead if count else None,
                    worker_init_fn=_prepare if count else None,
                    **options,
                )
            ),
            count,
            [],
        )
        processes = batches._workers if count else []
        while (item := _explained(lambda: next(batches, _END), count, processes)) is not _END:
            if isinstance(item, (RunError, ConfigError)):
                raise item
            yield item
    finally:
        if count and batches is not None:
            _end(batches)


def loader_failure(error: BaseException) -> ProcessLostError | None:
    """Return the error for a dead loader process; None for any other error. torch raises its error from a signal
    handler, so it can appear anywhere in the main thread."""
    text = str(error)
    if not (
        isinstance(error, RuntimeError) and re.search(r"DataLoader worker \(pid|[Pp]in memory thread exited", text)
    ):
        return None
    return ProcessLostError(_cause(error))


def _explained(work: Callable[[], Any], workers: int, processes: list[Any]) -> Any:
    """Call `work()`. Failures of loader processes become ProcessLostError."""
    try:
        return work()
    except RunError:
        raise
    except Exception as error:
        # An error in the data set's own code arrives as "Caught TypeError in DataLoader worker process 0".
        if workers and (not str(error).startswith("Caught ") or _lacks_something(error)):
            raise ProcessLostError(_cause(error, _how_ended(processes))) from error
        raise


def _how_ended(processes: list[Any]) -> str:
    """Return how a loader process ended, in torch's words. An incompletely received batch (after a connection reset,
    for example) does not say."""
    ending = wait([process.sentinel for process in processes], timeout=0.2)
    for process in processes:
        if process.sentinel in ending:
            process.join(1)
    codes = [process.exitcode for process in processes if process.exitcode]
    if not codes:
        return ""
    return f" killed by signal: {signal.strsignal(-codes[0])}" if codes[0] < 0 else f" exit code {codes[0]}"


def _lacks_something(error: Exception) -> bool:
    return isinstance(error, MemoryError) or bool(re.search(f"{_NO_SHARED_MEMORY}|{_NO_FILES}", str(error)))


_NO_SHARED_MEMORY = r"shared memory|[Bb]us error|unable to (mmap|resize)|No space left on device"
_NO_FILES = r"Too many open files|items of ancdata"


def _cause(error: BaseException, ended: str = "") -> str:
    """Return the cause as far as it is known, and the settings that help. `ended` is the result of `_how_ended`."""
    text = " ".join(f"{error}{ended}".split())
    alone = "set runtime.workers=0 (images are then loaded in the training process)"
    number = getattr(error, "errno", None)
    if number == errno.EMFILE or re.search(_NO_FILES, text):
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return (
            f"the loader processes need more open files than this shell allows ({limit}): raise the limit with "
            f"`ulimit -n 65536`, or {alone}"
        )
    if number == errno.ENOSPC or re.search(_NO_SHARED_MEMORY, text):
        return (
            f"the loader processes ran out of shared memory ({_shared_memory()}): enlarge it (docker run "
            f"--shm-size=8g, or --ipc=host), or {alone}"
        )
    if isinstance(error, MemoryError) or number == errno.ENOMEM or "killed by signal: Killed" in text:
        return (
            "a loader process was killed or got no memory, probably because the machine or the job ran out of memory: "
            f"lower runtime.workers, give the job more memory, or {alone}"
        )
    if number == errno.EAGAIN:
        return f"the system starts no further process for this user (`ulimit -u`): lower runtime.workers, or {alone}"
    if isinstance(error, pickle.PicklingError) or "pickle" in text:
        return f"a batch or the data set cannot be sent to another process ({text}): {alone}"
    if found := re.search(r"killed by signal: ([A-Z][\w ]+)", text):
        how = f"a loader process was killed by signal {found[1].strip()!r}"
    elif found := re.search(r"exit code (\d+)", text):
        how = f"a loader process ended with exit code {found[1]}"
    elif "exited" in text:
        how = "a loader process ended unexpectedly"
    else:
        how = f"the loader processes failed ({type(error).__name__}: {text})"
    return f"{how}: {alone}, which shows the cause if it is an image or a library"


def _shared_memory() -> str:
    try:
        return f"/dev/shm has {shutil.disk_usage('/dev/shm').total / 2**20:,.0f} MiB"
    except OSError:
        return "there is no /dev/shm"


def _prepare(worker: int) -> None:
    """Initialise a loader process. It ignores signals that are sent to the whole group (a terminal's Ctrl-C, a
    scheduler's SIGUSR1, torchrun's SIGTERM), which the trainer handles. After a SIGTERM it ends within half a minute,
    so that the trainer can still write its checkpoint and no process remains."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    shorten_temporary_paths()  # a process that was not forked has not inherited it
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(30))
    signal.signal(signal.SIGBUS, signal.SIG_DFL)  # torch would print its own message; the trainer names the cause
    Queue._on_queue_feeder_error = _send_reason  # type: ignore[attr-defined]


def _send_reason(queue: Any, error: Exception, batch: Any) -> None:
    """Send the reason in place of a batch that cannot be sent (no shared memory, no file descriptor). By default Python
    prints a traceback and drops the batch, and the trainer waits for it forever."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:  # ending the process needs descriptors too
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    queue.put((batch[0], ProcessLostError(_cause(error))))


def _whole(batch: Any) -> Any:
    return batch


def _end(batches: Any) -> None:
    """End a DataLoader's processes. If this is left to the interpreter's exit, they get SIGTERM and may live another
    half minute."""

    def kill() -> None:
        for process in batches._workers:
            process.kill()

    killer = threading.Timer(_PATIENCE, kill)
    killer.daemon = True
    killer.start()
    try:
        batches._shutdown_workers()  # no effect after the last batch; it has no public name
    except RuntimeError as error:  # from torch's signal handler, when a process dies meanwhile
        if loader_failure(error) is None:
            raise
    finally:
        killer.cancel()
