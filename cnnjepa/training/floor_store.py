"""Storage of measured floors. Trials of a study share floors, so each is measured once.

The pixel floor is the same for every trial with the same images and probe settings; the floor of the untrained encoder
is the same for every trial with the same encoder and seed. Measuring them takes longer than training a small trial.
"""

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter, ValidationError

from cnnjepa.errors import RunError
from cnnjepa.probes.assessment import FloorFigures, Measure
from cnnjepa.schemas import PretrainConfig, Probes
from cnnjepa.schemas.hashing import NEWER
from cnnjepa.schemas.probe import FloorName
from cnnjepa.schemas.source_files import module_fingerprint
from cnnjepa.storage.atomic_files import write_atomically

T = TypeVar("T")
_PROBES, _METRICS = TypeAdapter(Probes), TypeAdapter(dict[str, float])
# Probe settings that do not affect the figures of any floor.
_NOT_OF_FLOORS = {
    "every_epochs", "online_images", "encoder", "floors", "feature_batch_size", "metrics", "data", "data_fingerprints",
    "held_out_groups",
}  # fmt: skip
# Settings that decide which pixels of the images a probe sees. `resident` and `on_error` matter if images are
# unreadable: a resident set leaves them out before any are chosen.
_PIXELS = ("image_size", "mean", "std", "train_images", "val_images", "resident", "on_error")


class FloorStore:
    """A folder of JSON files, one per floor. Several processes may use it at once (the last to write writes the
    same)."""

    def __init__(self, folder: Path, config: PretrainConfig, fingerprint: str) -> None:
        self._folder, self._config, self._fingerprint = folder, config, fingerprint

    def __call__(self, floor: FloorName, measure: Measure) -> FloorFigures:
        """Return the stored figures; call `measure` for those that are not stored, and store its result. Probes and
        metrics have a file each, so that a further metric does not repeat the probes. A damaged file is treated as
        missing."""
        settings = floor_settings(floor, self._config)
        of_probes = self._folder / f"{floor}-{_name(settings, self._config, self._fingerprint)}.json"
        settings["metrics"] = {metric.name: metric.identity for metric in self._config.probe.metrics}
        of_metrics = self._folder / f"{floor}-metrics-{_name(settings, self._config, self._fingerprint)}.json"
        probes = _stored(of_probes, _PROBES)
        metrics = _stored(of_metrics, _METRICS) if settings["metrics"] else {}
        if probes is not None and metrics is not None:
            return FloorFigures(probes, metrics)
        found = measure(probes is None)
        if probes is None:
            self._store(of_probes, _PROBES.dump_json(found.probes, indent=1))
        if metrics is None:
            self._store(of_metrics, _METRICS.dump_json(found.metrics, indent=1))
        return FloorFigures(found.probes if probes is None else probes, found.metrics)

    def _store(self, path: Path, content: bytes) -> None:
        with contextlib.suppress(RunError, OSError):  # a result that cannot be stored is measured again
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)


def _stored(path: Path, form: TypeAdapter[T]) -> T | None:
    """Return the content of a file; None if it is missing or damaged."""
    try:
        return form.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def floor_settings(floor: FloorName, config: PretrainConfig) -> dict[str, Any]:
    """Return every setting of a resolved config that affects the floor's figures."""
    dump: dict[str, Any] = config.model_dump(mode="json")
    settings = {
        "data": {name: dump["data"].get(name) for name in _PIXELS}
        | {name: dump["data"][name] for name, usual in NEWER["data"].items() if dump["data"][name] != usual},
        "probe": {name: value for name, value in dump["probe"].items() if name not in _NOT_OF_FLOORS},
        "device": dump["runtime"]["device"],
    }
    if floor == "untrained":  # its features are float32 at any training precision
        # The fingerprint represents given weights, on which the seed has no effect.
        warm = config.encoder.warm
        others = ("backend", "init", "init_encoder", *(() if warm else ("init_fingerprint",)))
        settings["encoder"] = {name: value for name, value in dump["encoder"].items() if name not in others}
        settings["start"] = [None if warm else dump["runtime"]["seed"], dump["runtime"]["channels_last"]]
        if named := config.encoder.own_network:
            settings["encoder"]["source"] = module_fingerprint(named.partition(":")[0])
    return settings


def _name(settings: dict[str, Any], config: PretrainConfig, fingerprint: str) -> str:
    """Return 32 hex digits that identify everything on which the floor's figures depend: `settings`, images, and what
    changes the last bits of sums (threads, version of torch, kind of GPU)."""
    gpu = torch.cuda.get_device_name() if config.runtime.device == "cuda" else None
    parts = {
        "settings": settings,
        "images": fingerprint,
        "arithmetic": [torch.get_num_threads(), str(torch.__version__), gpu],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
