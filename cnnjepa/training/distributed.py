"""The processes of a run: one, or several started by torchrun.

Batch norm is per process, as the authors train; the running statistics that are saved are those of process 0.
"""

import datetime
import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from cnnjepa.cpus import usable_cpus
from cnnjepa.errors import InUseError, RunError, Stopped
from cnnjepa.launcher import Launch, launched, refusal
from cnnjepa.schemas import ConfigError, RuntimeConfig

# Process 0 probes while the others wait; on a large set that takes longer than the default half hour.
PATIENCE = datetime.timedelta(hours=12)

# What one process raises for all, the narrower kind first.
_SHARED: dict[str, type[Exception]] = {
    "stopped": Stopped, "busy": InUseError, "refused": ConfigError, "failed": RunError,
}  # fmt: skip


@dataclass(frozen=True)
class Processes:
    """This process among those of the run."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this one writes and probes."""
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """The sum over processes of a detached tensor."""
        if self.world_size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def any(self, flag: bool) -> bool:
        """Whether any process says so. Waits for the device."""
        if self.world_size == 1:
            return flag
        return bool(self.sum(torch.tensor(float(flag), device=self.device)).item())

    def union(self, names: list[str]) -> list[str]:
        """Every process's names, each once, in the order of processes."""
        if self.world_size == 1:
            return names
        boxes: list[list[str]] = [[] for _ in range(self.world_size)]
        dist.all_gather_object(boxes, names)
        return list(dict.fromkeys(name for box in boxes for name in box))

    def wait(self) -> None:
        """Until every process is here."""
        if self.world_size > 1:
            dist.barrier()

    def on_main(self, work: Callable[[], object]) -> None:
        """Runs `work` on process 0 while the others wait. If it is stopped, refuses or fails, every process raises
        alike, so that none waits for another."""
        failure: Exception | None = None
        if self.is_main:
            try:
                work()
            except tuple(_SHARED.values()) as error:
                failure = error
        kind = next((name for name, kind in _SHARED.items() if isinstance(failure, kind)), "")
        told = self.share(None if failure is None else f"{kind}:{failure}")
        if failure is not None:
            raise failure
        if told is not None:
            kind, _, text = told.partition(":")
            raise _SHARED[kind](text)

    def share(self, text: str | None) -> str | None:
        """Process 0's text, on every process: how its verdict (a refusal, say) becomes everybody's."""
        if self.world_size == 1:
            return text
        box = [text]
        dist.broadcast_object_list(box, src=0)
        return box[0]


def pick_device(asked: str, local_rank: int = 0) -> torch.device:
    """`auto`, `cpu` or `cuda` as a device. Raises ConfigError for a GPU where there is none."""
    if asked == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "runtime.device=cuda: this machine has no usable CUDA GPU; legal here are cpu and auto "
            "(`cnnjepa doctor` shows what torch sees)"
        )
    if asked == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(f"process {local_rank} has no GPU of its own; there are {torch.cuda.device_count()}")
    return torch.device("cuda", local_rank)


def use_threads(runtime: RuntimeConfig) -> None:
    """Let torch use `runtime.threads` threads; by default, no more than this process may use CPUs. (torch counts the
    machine's cores, whatever the quota of the container.)"""
    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    elif "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > usable_cpus():
        torch.set_num_threads(usable_cpus())


def join(runtime: RuntimeConfig) -> Processes:
    """Joins torchrun's process group if its environment is set; else this process is alone. Raises ConfigError when
    the environment describes no launch, or the other processes do not come."""
    launch = launched()
    device = pick_device(runtime.device, launch.local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        # Bits must not depend on which algorithm a benchmark liked best today.
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    use_threads(runtime)
    if launch.world_size == 1:
        return Processes(0, 1, device)
    if not dist.is_initialized():
        store = _meeting_point(launch)
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=store,
            rank=launch.rank,
            world_size=launch.world_size,
            timeout=PATIENCE,
        )
    return Processes(dist.get_rank(), dist.get_world_size(), device)


def _meeting_point(launch: Launch) -> Store:
    """The store of the launch, once every process has come to it. Raises ConfigError when one does not come in time."""
    try:
        store, _, _ = next(rendezvous("env://", timeout=datetime.timedelta(seconds=launch.patience)))
    except dist.DistError as error:
        reason = str(error).strip().splitlines()[0]
        raise refusal(
            f"the {launch.world_size} processes of this run did not all come to {os.environ['MASTER_ADDR']}:"
            f"{os.environ['MASTER_PORT']} within {launch.patience:g} s ({reason}); this is RANK={launch.rank} of "
            f"WORLD_SIZE={launch.world_size}"
        ) from None
    store.set_timeout(PATIENCE)
    return PrefixStore("run", store)


def leave() -> None:
    """Ends the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()
