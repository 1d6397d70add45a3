"""The number of CPUs available to this process, from its affinity and its control group's quota (a container's
`--cpus`)."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def usable_cpus(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the number of whole CPUs, at least 1. A quota of 1.5 CPUs counts as 1, so that two processes never share
    the fraction.

    `proc` and `root` are the paths where Linux exposes control groups, v1 and v2 (cgroups(7)). Other systems have no
    quota.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *(int(quota) for quota in _quotas(proc, root))]))


def _quotas(proc: Path, root: Path) -> Iterator[float]:
    """Yield the quota, in CPUs, of every group that contains this process, from the innermost to the root."""
    try:
        lines = proc.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        names = controllers.split(",")
        if controllers and "cpu" not in names:
            continue
        for mount in _mounts(controllers, root):
            inside = PurePosixPath(path.lstrip("/"))
            # In a container the path may be the host's path, and the mount shows only the last part of it. The root
            # group is therefore read too.
            for folder in dict.fromkeys([mount / inside, *((mount / parent) for parent in inside.parents), mount]):
                quota = _quota(folder)
                if quota is not None:
                    yield quota


def _mounts(controllers: str, root: Path) -> list[Path]:
    """Return the paths where the hierarchy of these controllers may be mounted. An empty string stands for v2."""
    if not controllers:
        return [root, root / "unified"]
    return [root / controllers, root / "cpu"]


def _quota(folder: Path) -> float | None:
    """Return the group's own quota in CPUs, or None if it has none."""
    try:
        if (folder / "cpu.max").is_file():  # v2: "<quota or max> <period>", microseconds
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:  # v1: -1 means no quota
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="utf-8").strip()
            period = (folder / "cpu.cfs_period_us").read_text(encoding="utf-8").strip()
        return None if quota in ("max", "-1") else float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
