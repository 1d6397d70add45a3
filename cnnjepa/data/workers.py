"""Loader processes: what they are initialised with, and how they hand batches over."""

import os
import signal
from typing import Any


def usable_workers(asked: int) -> int:
    """Loader processes worth starting: no more than there are cores. Their number changes no batch."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(asked, cores)


def quiet_worker(worker: int) -> None:
    """Initialises a loader process: signals sent to the whole group (a terminal's Ctrl-C, a scheduler's SIGUSR1,
    torchrun's SIGTERM) are the trainer's to answer. After a SIGTERM it leaves within half a minute, so that the
    trainer can still write its checkpoint and nothing is left hanging."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(30))


def whole_batch(batch: Any) -> Any:
    """A collate function for data sets whose `__getitems__` gives a whole batch already."""
    return batch
