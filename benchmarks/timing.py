"""Timing of several works alternately, so that a slow minute of the machine affects all of them."""

from collections.abc import Callable, Mapping

import torch

from cnnjepa.measuring.step_timer import seconds


def alternately(
    works: Mapping[str, Callable[[], object]], rounds: int, device: torch.device | None = None, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of every work in every round, by name: `warm_up` untimed rounds, then `rounds`; each round does all of
    them, one after the other. On a GPU the device is waited for before and after."""
    device = device or torch.device("cpu")
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(warm_up + rounds):
        for name, work in works.items():
            taken = seconds(work, device)
            if number >= warm_up:
                times[name].append(taken)
    return times
