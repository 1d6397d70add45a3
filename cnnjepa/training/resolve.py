"""Resolution of a config before the run: every `auto` is decided, and paths become absolute."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from cnnjepa.schemas import PretrainConfig, pretrain_hash, probe_hash
from cnnjepa.schemas.data import LABEL_WORDS
from cnnjepa.schemas.hashing import hashed_settings
from cnnjepa.schemas.pixels import UNMEASURED, Measured


class Identity(NamedTuple):
    """The hash of a run and the settings behind it."""

    pretrain_hash: str
    probe_hash: str
    settings: dict[str, object]
    """The settings that are hashed to pretrain_hash."""


def resolve(
    config: PretrainConfig,
    resident: bool,
    device: torch.device,
    probe_fingerprints: Sequence[str] = (),
    measured: Measured = UNMEASURED,
    groups: str | None = None,
) -> PretrainConfig:
    """Return the config as it is run: device and residency decided, measured numbers filled in, paths of images
    absolute, and the fingerprints of the sets of `probe.data` and of the training images' `groups` filled in."""
    found: dict[str, object] = {"resident": "always" if resident else "never"}
    if config.data.labels not in LABEL_WORDS:
        found["labels"] = str(Path(config.data.labels).resolve())
    if config.data.images_path is not None:
        found["path"] = config.data.images_path.resolve()
    resolved = config.model_copy(
        update={
            "runtime": config.runtime.model_copy(update={"device": device.type}),
            "data": config.data.measured_as(measured).model_copy(update=found),
        }
    )
    return with_probe_fingerprints(resolved, probe_fingerprints, groups)


def with_probe_fingerprints(
    config: PretrainConfig, fingerprints: Sequence[str], groups: str | None = None
) -> PretrainConfig:
    """Return the config with absolute paths of the sets of `probe.data`, their fingerprints, and the fingerprint of the
    training images' `groups` if images are held out from them."""
    own = not config.probe.data or config.method.LEARNS_FROM_LABELS
    found = {
        "data": tuple(one.resolved() for one in config.probe.sets),
        "data_fingerprints": tuple(fingerprints),
        "held_out_groups": groups if own else None,
    }
    return config.model_copy(update={"probe": config.probe.model_copy(update=found)})


def identify(config: PretrainConfig, fingerprint: str, world_size: int) -> Identity:
    """Return the names of a resolved config on the images that `fingerprint` identifies."""
    return Identity(
        pretrain_hash(config, fingerprint, world_size),
        probe_hash(config),
        hashed_settings(config, fingerprint, world_size),
    )
