"""Several processes on this machine that compute the features of one set."""

import multiprocessing
import os
import queue
import signal
from typing import Any

from cnnjepa import signals
from cnnjepa.cpus import usable_cpus
from cnnjepa.embedding.parts import Parts
from cnnjepa.embedding.request import EmbedRequest
from cnnjepa.errors import ProcessLostError, Stopped

_SECONDS = 0.5  # between two looks at the processes


def compute_together(request: EmbedRequest, parts: Parts, tick: Any) -> None:
    """Compute the missing parts in `request.processes` processes. The first that fails ends the others, and its error
    is raised here. Raises Stopped after a stop signal; finished parts stay."""
    # A process with CUDA cannot be forked.
    context = multiprocessing.get_context("spawn")
    messages: Any = context.Queue()
    with signals.sheltered():
        processes = [
            context.Process(target=_share, args=(request, rank, os.getpid(), messages), daemon=True)
            for rank in range(request.processes)
        ]
        for process in processes:
            process.start()
    done = [parts.finished_images(rank, request.processes)[0] for rank in range(request.processes)]
    try:
        waiting = set(range(request.processes))
        while waiting:
            if (name := signals.received()) is not None:
                raise Stopped(name)
            try:
                rank, kind, content = messages.get(timeout=_SECONDS)
            except queue.Empty:
                lost = [rank for rank in waiting if processes[rank].exitcode not in (None, 0)]
                if lost:
                    raise ProcessLostError(
                        f"process {lost[0]} ended with exit code {processes[lost[0]].exitcode}; run the same command "
                        "again, which continues after the finished parts"
                    ) from None
                continue
            if kind == "done":
                done[rank] = content
                tick(sum(done), parts.images)
            elif kind == "end":
                waiting.remove(rank)
            else:
                from cnnjepa.training.distributed import KINDS

                raise KINDS[kind](f"process {rank}: {content}")
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _share(request: EmbedRequest, rank: int, parent: int, messages: Any) -> None:
    """Compute the share of one process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers it
    from cnnjepa.training.distributed import kind_of, text_of

    def tick(done: int, total: int) -> None:
        if os.getppid() != parent:
            raise Stopped("the parent process has ended")
        messages.put((rank, "done", done))

    try:
        import torch

        from cnnjepa.embedding.embed import Job

        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, usable_cpus() // request.processes))
        Job(request).compute(rank, request.processes, rank, tick)
        messages.put((rank, "end", None))
    except Exception as error:
        messages.put((rank, kind_of(error), text_of(error)))
