"""Loader processes: what they are initialised with, and how they hand batches over."""

import os
import signal
from typing import Any


def usable_workers(asked: int) -> int:
    """Loader processes worth starting: no more than there are cores. Their number changes no batch."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(asked, cores)


def quiet_worker(worker: int) -> None:
    """Initialises a loader process: a terminal's Ctrl-C and a scheduler's SIGUSR1 are the trainer's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def whole_batch(batch: Any) -> Any:
    """A collate function for data sets whose `__getitems__` gives a whole batch already."""
    return batch
