"""Epochs that give every method the time of a step of CNN-JEPA's run, from measured steps."""

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cnnjepa.ablations.method_study import changes_of
from cnnjepa.schemas import ConfigError, load_config

_MAKE = "cnnjepa benchmark --cost"


def equal_time_epochs(costs: Path, preset: str, methods: Iterable[str], fixed: dict[str, Any]) -> dict[str, int]:
    """Method → the whole epochs, at least one, whose training steps take about as long as CNN-JEPA's steps of its own
    epochs take. Loading is left out, as it is where the steps were measured.

    `costs` is what `cnnjepa benchmark --cost` wrote for the same preset, image size and global batch; `fixed` (full
    config path → value) holds for every method. Raises ConfigError when it was written for something else.
    """
    measured = _read(costs)
    base = load_config(preset, changes=fixed)
    asked = {"preset": preset, "batch": base.runtime.batch_size, "image_size": base.data.image_size}
    different = [
        f"{key} {measured[key]} there, {value} asked" for key, value in asked.items() if measured[key] != value
    ]
    if different:
        raise ConfigError(
            f"--equal-time {costs}: measured for another setting ({'; '.join(different)}); measure again: "
            f"{_MAKE} --preset {preset} --batch {asked['batch']} --image-size {asked['image_size']}"
        )
    epochs = {}
    for method in methods:
        changes = {path: value for path, value in changes_of(preset, method).items() if path not in fixed}
        config = load_config(preset, changes={**changes, **fixed})
        if not config.trained_epochs:
            continue
        if method not in measured["seconds"]:
            raise ConfigError(
                f"--equal-time {costs}: {method} was not measured; it has {', '.join(sorted(measured['seconds']))}"
            )
        share = measured["seconds"]["cnnjepa"] / measured["seconds"][method]
        epochs[method] = max(1, round(base.runtime.epochs * share))
    return epochs


def _read(path: Path) -> dict[str, Any]:
    """preset, batch, image_size, and seconds: method → median of a step."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        seconds = {name: statistics.median(map(float, cost["seconds"])) for name, cost in record["methods"].items()}
        found = {key: record[key] for key in ("preset", "batch", "image_size")}
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ConfigError(
            f"--equal-time {path}: is not a file that `{_MAKE}` wrote ({type(error).__name__}: {error})"
        ) from None
    if "cnnjepa" not in seconds or min(seconds.values()) <= 0:
        raise ConfigError(f"--equal-time {path}: lacks the time of cnnjepa's step; measure again with `{_MAKE}`")
    return {**found, "seconds": seconds}
