"""The processes of a run: one, or several started by torchrun.

Batch norm is computed per process (docs/sources.md#batch-norm). The saved running statistics are those of process 0.
"""

import datetime
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from cnnjepa import signals
from cnnjepa.cpus import usable_cpus
from cnnjepa.errors import ImageError, InUseError, ProcessLostError, RunError, Stopped
from cnnjepa.launcher import Launch, launched, refusal
from cnnjepa.schemas import ConfigError, RuntimeConfig
from cnnjepa.training.failure_watch import FailureWatch

# Process 0 probes while the others wait. On a large set that takes longer than the default half hour.
PATIENCE = datetime.timedelta(hours=12)

# Seconds that processes may take to start.
_START_WITHIN = datetime.timedelta(minutes=30)

# Errors that one process raises on all, narrower kinds first.
KINDS: dict[str, type[Exception]] = {
    "stopped": Stopped, "busy": InUseError, "refused": ConfigError, "lost": ProcessLostError, "image": ImageError,
    "failed": RunError,
}  # fmt: skip


def kind_of(error: Exception) -> str:
    """Return the error's name in KINDS. An unexpected error is `failed`."""
    return next((name for name, kind in KINDS.items() if isinstance(error, kind)), "failed")


def text_of(error: Exception) -> str:
    """Return the text that is shown and recorded. An unexpected error is named by its class."""
    return str(error) if isinstance(error, tuple(KINDS.values())) else f"{type(error).__name__}: {error}"


def named(rank: int, text: str) -> str:
    """Return the text prefixed once by the rank that it is about."""
    return text if re.match(r"rank \d+: ", text) else f"rank {rank}: {text}"


@dataclass(frozen=True)
class Processes:
    """This process and its place among the processes of the run."""

    rank: int
    world_size: int
    device: torch.device
    failures: FailureWatch | None = None
    """None if there is only one process."""

    @property
    def is_main(self) -> bool:
        """Return whether this process writes files and probes."""
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """Sum a detached tensor over all processes."""
        if self.world_size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def any(self, flag: bool) -> bool:
        """Return whether `flag` is true on any process. Waits for the device."""
        if self.world_size == 1:
            return flag
        return bool(self.sum(torch.tensor(float(flag), device=self.device)).item())

    def union(self, names: list[str]) -> list[str]:
        """Return the names of all processes, each once, in rank order."""
        if self.world_size == 1:
            return names
        boxes: list[list[str]] = [[] for _ in range(self.world_size)]
        dist.all_gather_object(boxes, names)
        return list(dict.fromkeys(name for box in boxes for name in box))

    def wait(self) -> None:
        """Wait for all processes."""
        if self.world_size > 1:
            dist.barrier()

    def refuse_failed(self) -> None:
        """Raise the error that another process reported when it failed. This costs nothing, because a thread
        listens."""
        if self.failures is not None and self.failures.reported is not None:
            kind, text = self.failures.reported
            raise KINDS[kind](text)

    def on_main(self, work: Callable[[], object]) -> None:
        """Run `work` on process 0 while the others wait. If it is stopped, refuses or fails, every process raises the
        same error, so that none waits for another."""
        failure: Exception | None = None
        if self.is_main:
            try:
                work()
            except Exception as error:
                failure = error
        first = self.share(None if failure is None else f"{kind_of(failure)}:{text_of(failure)}")
        if failure is not None:
            raise failure
        if first is not None:
            kind, _, text = first.partition(":")
            raise KINDS[kind](text if kind in ("stopped", "busy", "refused") else named(0, text))

    def share(self, text: str | None) -> str | None:
        """Return the text of process 0 on every process. Its decision (a refusal, for example) thereby applies to
        all."""
        if self.world_size == 1:
            return text
        box = [text]
        dist.broadcast_object_list(box, src=0)
        return box[0]


def gpus_are_shared() -> bool:
    """Return whether several processes of a run may use one GPU (the variable CNNJEPA_SHARE_GPUS=1). That is for
    checking distributed training on a machine with one GPU: it is slow, and NCCL refuses it, so gloo is used."""
    return os.environ.get("CNNJEPA_SHARE_GPUS") == "1"


def pick_device(asked: str, local_rank: int = 0) -> torch.device:
    """Return `auto`, `cpu` or `cuda` as a device. Raises ConfigError if a GPU is requested and there is none."""
    if asked == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "runtime.device=cuda: this machine has no usable CUDA GPU; it must be cpu or auto here "
            "(`cnnjepa doctor` shows what torch sees)"
        )
    if asked == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        if gpus_are_shared():
            return torch.device("cuda", local_rank % torch.cuda.device_count())
        raise ConfigError(f"process {local_rank} has no GPU of its own; there are {torch.cuda.device_count()}")
    return torch.device("cuda", local_rank)


def use_threads(runtime: RuntimeConfig) -> None:
    """Let torch use `runtime.threads` threads. The default is at most the number of CPUs that this process may use.
    (torch counts the machine's cores, whatever the quota of the container.)"""
    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    elif "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > usable_cpus():
        torch.set_num_threads(usable_cpus())


def join(runtime: RuntimeConfig) -> Processes:
    """Join torchrun's process group if its environment variables are set; otherwise this process is the only one.
    Raises ConfigError if the variables describe no launch, if the other processes do not join, or if one of them has no
    device."""
    launch = launched()
    if launch.world_size == 1:
        return Processes(0, 1, prepared_device(runtime, launch.local_rank))
    joined = dist.is_initialized()  # Ray Train has done it
    store = dist.distributed_c10d._get_default_store() if joined else _meeting_point(launch)
    failures = FailureWatch(store, launch.rank, launch.world_size)
    try:
        device = prepared_device(runtime, launch.local_rank)
        if not joined:
            _await_all(store, failures, launch)
            dist.init_process_group(
                "nccl" if device.type == "cuda" and not gpus_are_shared() else "gloo",
                store=store,
                rank=launch.rank,
                world_size=launch.world_size,
                timeout=PATIENCE,
            )
    except Exception as error:
        if failures.reported is None and failures.claim():
            failures.say(kind_of(error), named(launch.rank, text_of(error)))
        failures.leave()
        raise
    return Processes(dist.get_rank(), dist.get_world_size(), device, failures)


def prepared_device(runtime: RuntimeConfig, local_rank: int) -> torch.device:
    """Return the process's device, with full float32 products and its number of threads set. Raises ConfigError if
    there is no such device, or if it lacks the precision."""
    device = pick_device(runtime.device, local_rank)
    if runtime.precision == "tf32" and device.type != "cuda":
        raise ConfigError("runtime.precision=tf32 is a mode of GPUs, and this run has none; use float32 or bf16")
    if device.type == "cuda":
        torch.cuda.set_device(device)
        # The result must not depend on the algorithm that a benchmark selects.
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        # Training steps may allow it (`train_step`); probes never do.
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    use_threads(runtime)
    return device


def _meeting_point(launch: Launch) -> Store:
    """Return the store of the launch. Raises ConfigError if the store, or a process for which it waits, does not appear
    in time."""
    try:
        store, _, _ = next(rendezvous("env://", timeout=datetime.timedelta(seconds=launch.patience)))
    except dist.DistError as error:
        raise _absent(launch, str(error).strip().splitlines()[0]) from None
    store.set_timeout(PATIENCE)
    return PrefixStore("run", store)


def _absent(launch: Launch, reason: str) -> ConfigError:
    return refusal(
        f"the {launch.world_size} processes of this run did not all connect to {os.environ['MASTER_ADDR']}:"
        f"{os.environ['MASTER_PORT']} within {launch.patience:g} s ({reason}); this is RANK={launch.rank} of "
        f"WORLD_SIZE={launch.world_size}"
    )


def _await_all(store: Store, failures: FailureWatch, launch: Launch) -> None:
    """Return when every process has a device. If another process reports an error, that error is raised instead: a
    process without a device never joins the group, and the others would wait for it."""
    store.set(f"ready/{launch.rank}", "")
    ready = [f"ready/{rank}" for rank in range(launch.world_size)]
    until = time.monotonic() + launch.patience
    while not store.check(ready):
        if failures.reported is not None:
            kind, text = failures.reported
            raise KINDS[kind](text)
        if signals.received():
            raise Stopped(signals.received())
        if time.monotonic() > until:
            missing = [str(rank) for rank, key in enumerate(ready) if not store.check([key])]
            raise _absent(launch, f"missing: RANK {', '.join(missing)}")
        time.sleep(0.02)


def leave(processes: Processes, failed: bool) -> None:
    """End the process group, if there is one. After a failure, no process waits for collectives that others never
    join."""
    if not failed and processes.failures is not None:
        processes.failures.leave()
        processes.wait()  # process 0 may hold the store
    if dist.is_initialized():
        if failed and dist.get_backend() == "nccl":
            dist.distributed_c10d._abort_process_group()  # destroying it would flush collectives first
        else:
            dist.destroy_process_group()
    if processes.failures is not None:
        processes.failures.leave()
