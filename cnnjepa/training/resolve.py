"""From what was asked to what is run: every `auto` decided, paths absolute."""

from typing import NamedTuple

import torch

from cnnjepa.schemas import PretrainConfig, pretrain_hash, probe_hash
from cnnjepa.schemas.hashing import hashed_settings


class Identity(NamedTuple):
    """What a run is called."""

    pretrain_hash: str
    probe_hash: str
    settings: dict[str, object]
    """What pretrain_hash is made of."""


def resolve(config: PretrainConfig, resident: bool, device: torch.device) -> PretrainConfig:
    """The config as it is run: device and residency decided, the data path absolute."""
    found: dict[str, object] = {"resident": "always" if resident else "never"}
    path = getattr(config.data, "path", None)
    if path is not None:
        found["path"] = path.resolve()
    return config.model_copy(
        update={
            "runtime": config.runtime.model_copy(update={"device": device.type}),
            "data": config.data.model_copy(update=found),
        }
    )


def identify(config: PretrainConfig, fingerprint: str, world_size: int) -> Identity:
    """Names of a resolved config on the images that `fingerprint` stands for."""
    return Identity(
        pretrain_hash(config, fingerprint, world_size),
        probe_hash(config),
        hashed_settings(config, fingerprint, world_size),
    )
