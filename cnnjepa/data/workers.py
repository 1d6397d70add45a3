"""Loader processes and signals."""

import signal


def quiet_worker(worker: int) -> None:
    """Initialises a loader process: a terminal's Ctrl-C and a scheduler's SIGUSR1 are the trainer's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
