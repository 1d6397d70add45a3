"""Hashes of configs: two configs with the same hash give the same numbers."""

import hashlib
import json
from typing import Any

from cnnjepa.schemas.config import PretrainConfig
from cnnjepa.schemas.extension import extensions_in

# Settings that change how a run is executed or observed, not its numbers.
_NOT_HASHED = {
    "runtime": (
        "workers",
        "threads",
        "log_every_steps",
        "checkpoint_every_steps",
        "keep_epochs",
        "images_every_epochs",
        # The hash of the continued run represents it.
        "continues",
    ),
    # A fingerprint of the initial weights represents them.
    "encoder": ("init", "init_encoder"),
    "optimizer": ("lr_at_batch",),
    # The path of the images is left out; a fingerprint of the set represents them. `on_error: raise` finishes only if
    # no image had to be skipped, so both values give the same numbers.
    "data": (
        "path",
        "download",
        "resident_limit_gib",
        "train_split",
        "val_split",
        "train_file",
        "val_file",
        "on_error",
        # The fingerprint covers labels and splits.
        "labels",
        "val_fraction",
        "val_seed",
        "groups",
        "hub",
        "subset",
        "image_column",
        "label_column",
    ),
}

NEWER: dict[str, dict[str, Any]] = {
    "encoder": {"blocks": 12, "init_fingerprint": ""},
    "optimizer": {"weight_decay_end": None, "decays": "all"},
    "schedule": {"warmup_start_factor": 0.0},
    "runtime": {"cuda_graphs": False, "continues_hash": ""},
    "data": {"channels": 3, "dtype": "uint8", "range": "dtype"},
    "data.augmentation": {"name": "crop", "vertical_flip": 0.0, "quarter_turns": 0.0},
}
"""Settings that are newer than the first runs, each with the value that those runs used. At that value a setting is
left out of the hash, so that those runs keep their names."""

# Default values of probe settings that do not affect any figure of a result. The hash always contains these values, so
# that results made with the defaults keep their names.
_NOT_JUDGED = {"every_epochs": 0, "online_images": 20_000, "feature_batch_size": 256}


def _sha256(value: Any) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def probe_settings_in_training(config: PretrainConfig) -> dict[str, Any]:
    """Return the probe settings that affect the content of the method's checkpoint: name → value. Most methods have
    none. None counts as absent: `probe.resize` was once left out, and runs without it keep their names."""
    probe = config.probe.model_dump(mode="json")
    return {name: probe[name] for name in config.method.PROBE_SETTINGS_IN_TRAINING if probe[name] is not None}


def hashed_settings(config: PretrainConfig, dataset_fingerprint: str, world_size: int) -> dict[str, Any]:
    """Return every resolved setting that changes the numbers of pretraining.

    `config` must be resolved: no `auto` is left. Raises ValueError otherwise.
    """
    settings = config.model_dump(mode="json")
    del settings["probe"]
    if in_training := probe_settings_in_training(config):
        settings["probe"] = in_training
    for section, names in _NOT_HASHED.items():
        for name in names:
            settings[section].pop(name, None)
    for path, before in NEWER.items():
        section_settings = settings
        for part in path.split("."):
            section_settings = section_settings[part]
        for name, value in before.items():
            if section_settings.get(name, value) == value:
                section_settings.pop(name, None)
    unresolved = [
        f"{section}.{name}"
        for section, name in (("runtime", "device"), ("data", "resident"))
        if settings[section][name] == "auto"
    ]
    unresolved += [f"data.{name}" for name in config.data.unmeasured]
    unresolved += ["encoder.init"] if config.encoder.warm and not config.encoder.init_fingerprint else []
    unresolved += ["runtime.continues"] if config.runtime.continues and not config.runtime.continues_hash else []
    if unresolved:
        raise ValueError(f"{', '.join(unresolved)} is not decided yet; resolve the config before hashing it")
    settings["data"]["fingerprint"] = dataset_fingerprint
    settings["world_size"] = world_size
    settings["global_batch"] = world_size * config.runtime.batch_size
    if sources := {found.named: found.fingerprint for found in extensions_in(config)}:
        settings["sources"] = sources
    return settings


def pretrain_hash(config: PretrainConfig, dataset_fingerprint: str, world_size: int) -> str:
    """Return the SHA-256 (64 hex digits) of `hashed_settings`, which identifies the run to which a checkpoint
    belongs."""
    return _sha256(hashed_settings(config, dataset_fingerprint, world_size))


def probe_hash(config: PretrainConfig) -> str:
    """Return the SHA-256 (64 hex digits) of the probe settings that change a result's figures."""
    settings = {**config.probe.model_dump(mode="json"), **_NOT_JUDGED, "encoder": config.probed_encoder}
    del settings["metrics"]
    if config.probe.metrics:
        settings["metrics"] = {metric.name: metric.identity for metric in config.probe.metrics}
    if settings["held_out_groups"] is None:
        del settings["held_out_groups"]
    # Sets of the probe are known by their fingerprints. Without any, probes are of the run's own images.
    del settings["data"]
    if not settings["data_fingerprints"]:
        del settings["data_fingerprints"]
    if config.runtime.precision == "bf16":
        # Runs that train in bf16 were once probed on bf16 features. Their hash differs from that of results on float32
        # features.
        settings["features"] = "float32"
    return _sha256(settings)
