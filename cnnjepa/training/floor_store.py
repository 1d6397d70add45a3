"""Floors that were measured before: trials of a study share them, so they are measured once.

The pixels' floor is the same for every trial on the same images and probe settings, the untrained encoder's for every
trial with the same encoder and seed. Measuring them takes longer than training a small trial.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from cnnjepa.errors import RunError
from cnnjepa.schemas import PretrainConfig, Probes
from cnnjepa.schemas.probe import FloorName
from cnnjepa.training.files import write_atomically

# What probes of trained encoders have beyond those of floors.
_NOT_OF_FLOORS = {"every_epochs", "online_images", "encoder", "floors"}


class FloorStore:
    """A folder of JSON files, one a floor, safe while several processes use it (the last to write writes the same)."""

    def __init__(self, folder: Path, config: PretrainConfig, fingerprint: str) -> None:
        self._folder, self._config, self._fingerprint = folder, config, fingerprint

    def __call__(self, floor: FloorName, measure: Callable[[], Probes]) -> Probes:
        """What is on disk, else what `measure` gives, which is kept. A damaged file counts as none."""
        path = self._folder / f"{floor}-{_name(floor, self._config, self._fingerprint)}.json"
        try:
            return Probes.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            found = measure()
        with contextlib.suppress(RunError, OSError):  # what cannot be kept is measured again
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, found.model_dump_json(indent=1).encode())
        return found


def _name(floor: FloorName, config: PretrainConfig, fingerprint: str) -> str:
    """32 hex digits of everything that the floor's figures depend on, the number of threads included: sums of other
    pieces differ in their last bits."""
    dump: dict[str, Any] = config.model_dump(mode="json")
    parts = {
        "images": fingerprint,
        "data": {key: dump["data"].get(key) for key in ("image_size", "mean", "std", "train_images", "val_images")},
        "probe": {key: value for key, value in dump["probe"].items() if key not in _NOT_OF_FLOORS},
        "runtime": [dump["runtime"]["device"], torch.get_num_threads()],
    }
    if floor == "untrained":
        parts["encoder"] = {key: value for key, value in dump["encoder"].items() if key != "backend"}
        # Features are float32 whatever the precision of training; the word stays, so that floors keep their names.
        parts["start"] = [dump["runtime"]["seed"], "float32", dump["runtime"]["channels_last"]]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
