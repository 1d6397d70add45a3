"""Epochs that give every method the training time of CNN-JEPA, from measured steps."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cnnjepa.ablations.method_study import changes_of
from cnnjepa.ablations.step_cost_file import MADE_BY, read_step_costs, step_cost_path
from cnnjepa.commands import command
from cnnjepa.schemas import ConfigError, load_config
from cnnjepa.schemas.extent import as_yaml


def equal_time_epochs(
    costs: Path, preset: str, methods: Iterable[str], fixed: dict[str, Any], data: Path | None = None
) -> dict[str, int]:
    """Return method → number of whole epochs, at least one, whose training steps take about as long as those of
    CNN-JEPA in its own number of epochs.

    Loading is excluded, as it was when the steps were measured. An epoch of supervised training lacks the images that
    the probes hold out, so supervised training gets more epochs.

    `costs` is the file that `cnnjepa benchmark --cost` wrote for the same preset, image size and global batch. `fixed`
    (full config path → value) holds for every method. `data` is the path of the images, None for the preset's. Raises
    ConfigError when the file was written for another setting.
    """
    try:
        measured = read_step_costs(costs)
    except ConfigError as error:
        raise ConfigError(f"--equal-time {error}") from None
    base = load_config(preset, data=data, changes=fixed)
    asked = {"preset": preset, "batch": base.runtime.batch_size, "image_size": base.data.image_size}
    different = [
        f"{key} {_shown(there)} in the file, {_shown(value)} requested"
        for key, value in asked.items()
        if (there := getattr(measured, key)) != value
    ]
    if different:
        pixels = base.data.image_size
        square = ["--image-size", pixels] if isinstance(pixels, int) else ["--set", f"image_size={as_yaml(pixels)}"]
        size = ["--batch", asked["batch"], *square]
        images = [] if data is None else ["--data", data]
        root = next((root for root in costs.parents if step_cost_path(root) == costs), None)
        again = command(*MADE_BY.split(), "--preset", preset, *size, *images, root=root)
        raise ConfigError(
            f"--equal-time {costs}: measured with other settings ({'; '.join(different)}); measure again: {again}"
        )
    epochs = {}
    for method in methods:
        changes = {path: value for path, value in changes_of(preset, method).items() if path not in fixed}
        config = load_config(preset, data=data, changes={**changes, **fixed})
        if not config.trained_epochs:
            continue
        if method not in measured.methods:
            known = ", ".join(sorted(measured.methods))
            raise ConfigError(f"--equal-time {costs}: {method} was not measured; the file has {known}")
        shorter = 1 - config.probe.held_out_fraction if config.method.LEARNS_FROM_LABELS else 1.0
        epochs[method] = max(1, round(base.runtime.epochs * measured.share(method) / shorter))
    return epochs


def _shown(value: Any) -> str:
    return as_yaml(value) if isinstance(value, tuple) else str(value)
