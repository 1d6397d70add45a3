"""Memory and kernels of a work on a GPU."""

from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

GIB = 2.0**30


def allocated(device: torch.device) -> float:
    """GiB; 0 on a CPU."""
    return torch.cuda.memory_allocated(device) / GIB if device.type == "cuda" else 0.0


def peak(device: torch.device, work: Callable[[], object]) -> float | None:
    """GiB allocated at most during `work`; None on a CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    work()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) / GIB


def listed_kernels(device: torch.device, step: Callable[[], object], steps: int = 3, most: int = 15) -> dict[str, Any]:
    """The operations (on a GPU: kernels) that take a step's time, printed and given, and its waits for the device."""
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    with profile(activities=activities) as profiled:
        for _ in range(steps):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    on_gpu = device.type == "cuda"
    events = profiled.key_averages()
    taken = {e.key: float(e.self_device_time_total if on_gpu else e.self_cpu_time_total) for e in events}
    if on_gpu:  # an operator's own line carries its kernels' time again
        taken = {e.key: taken[e.key] for e in events if e.device_type == torch.autograd.DeviceType.CUDA}
    total = sum(taken.values())
    print(f"\n  {total / steps / 1000:.1f} ms {'of kernels' if on_gpu else 'of operations'} per step")
    top = sorted(taken.items(), key=lambda item: -item[1])[:most]
    waits = {e.key: e.count / steps for e in events if e.key.startswith("cuda") and "Synchronize" in e.key}
    print(f"\n  {'time':>6}  {'kernel' if on_gpu else 'operation'}")
    for name, time in top:
        print(f"  {100 * time / total:5.1f}%  {name[:110]}")
    if on_gpu:
        print(f"  waits for the device a step: {waits or 'none seen'}")
    shares = {name: time / total for name, time in top}
    return {"ms_a_step": total / steps / 1000, "share": shares, "waits_a_step": waits}
