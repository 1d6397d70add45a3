"""The environment of a run: versions, commit, hardware."""

import contextlib
import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from cnnjepa import __version__
from cnnjepa.cpus import usable_cpus
from cnnjepa.training.distributed import Processes

_PACKAGES = ("torch", "torchvision", "pydantic", "numpy")


def environment(processes: Processes) -> dict[str, Any]:
    """Return the content of environment.json."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "cnnjepa": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "host": platform.node(),
        "cpu": _cpu(),
        "cpu_count": os.cpu_count(),
        "cpus_usable": usable_cpus(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "device": str(processes.device),
        "world_size": processes.world_size,
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    """Return the checkout's commit, followed by `+` if it has changes; `unknown` outside a checkout."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        tracked = git("ls-files", "--error-unmatch", str(Path(__file__).resolve()))
        return git("rev-parse", "HEAD") + ("+" if tracked and git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def peak_memory_bytes(device: torch.device) -> int:
    """Return the peak of the device's memory (GPU) or of this process's resident set (CPU) since `forget_peak_memory`,
    in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError, StopIteration):
        # Not `ru_maxrss`, which a process inherits from its parent.
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak_memory(device: torch.device) -> None:
    """Restart the measurement of the peak, if the system allows it: on GPUs, and for a process on Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):  # not Linux, or a container whose /proc is read-only
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
