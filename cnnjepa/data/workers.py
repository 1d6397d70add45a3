"""Loader processes: what they are initialised with, and how they hand batches over."""

import signal
from typing import Any

from cnnjepa.cpus import usable_cpus


def usable_workers(asked: int) -> int:
    """Loader processes worth starting: no more than this process may use CPUs. Their number changes no batch."""
    return min(asked, usable_cpus())


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
