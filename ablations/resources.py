"""Resources of one trial, and the number of trials that fit on the machines at once."""

from typing import NamedTuple

import torch

from cnnjepa.cpus import usable_cpus
from cnnjepa.schemas import ConfigError

# Maximum CPUs of a process that has a GPU: for its loader processes and itself. Assumption.
_MOST_CPUS_PER_GPU_PROCESS = 16


class Resources(NamedTuple):
    """Resources of one trial."""

    cpus: float
    """CPUs of each process."""
    gpus: float
    """GPUs of the trial, over all its processes. A fraction lets several trials share one GPU."""
    workers: int
    """Number of processes."""

    @property
    def per_process(self) -> dict[str, float]:
        """Resources of one process."""
        resources = {"CPU": float(self.cpus), "GPU": self.gpus / self.workers}
        return {name: amount for name, amount in resources.items() if amount}


class Capacity(NamedTuple):
    """Resources of a cluster: (CPUs, GPUs) of every machine that is alive."""

    nodes: list[tuple[float, float]]

    @property
    def cpus(self) -> float:
        """CPUs of all machines."""
        return sum(cpus for cpus, _ in self.nodes)

    @property
    def gpus(self) -> float:
        """GPUs of all machines."""
        return sum(gpus for _, gpus in self.nodes)

    def processes(self, resources: Resources) -> int:
        """Return how many processes with these resources fit at once."""
        need = resources.per_process
        fits = [
            min(have // need[name] for name, have in (("CPU", cpus), ("GPU", gpus)) if name in need)
            for cpus, gpus in self.nodes
        ]
        return int(sum(fits))

    def trials(self, resources: Resources) -> int:
        """Return how many trials fit at once. Raises ConfigError when not even one fits, so that no trial waits
        forever."""
        a_process = resources.gpus / resources.workers
        if a_process > 1 and a_process != int(a_process):
            raise ConfigError(
                f"--gpus-per-trial {resources.gpus:g} over {resources.workers} process(es) is {a_process:g} per "
                "process, which must be a whole number or a fraction below 1"
            )
        count = self.processes(resources) // resources.workers
        if count:
            return count
        machines = "; ".join(f"{cpus:g} CPUs and {gpus:g} GPUs" for cpus, gpus in self.nodes) or "no machine"
        raise ConfigError(
            f"a trial needs {resources.workers} process(es) of {resources.cpus:g} CPUs and "
            f"{resources.gpus / resources.workers:g} GPUs, more than there is ({machines}); "
            f"lower --gpus-per-trial, --cpus-per-trial or --workers-per-trial"
        )


def this_machine() -> Capacity:
    """Return the CPUs that this process may use and the GPUs of this machine."""
    return Capacity([(float(usable_cpus()), float(torch.cuda.device_count()))])


def resources_per_trial(
    capacity: Capacity, workers: int, gpus: float | None, cpus: int | None, on_cpu: bool, side_by_side: bool
) -> Resources:
    """Return a trial's CPUs and GPUs: the requested ones, and defaults for None. The default is one GPU per process if
    there are any (unless the config says `cpu`), with a proportional part of the machine's cores. Without GPUs it is
    one core per process if trials run at the same time (`side_by_side`), else all cores."""
    if gpus is None:
        gpus = float(workers) if capacity.gpus and not on_cpu else 0.0
    if cpus is None and gpus:
        parts = [have / count for have, count in capacity.nodes if count]
        proportional = min(parts, default=1.0) * min(1.0, gpus / workers)
        cpus = int(max(1, min(_MOST_CPUS_PER_GPU_PROCESS, proportional)))
    if cpus is None:
        most = max((have for have, _ in capacity.nodes), default=1.0)
        cpus = 1 if side_by_side else max(1, int(most) // workers)
    return Resources(cpus, gpus, workers)
