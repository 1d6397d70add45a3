"""From a point of the searched space to the config that is tried."""

from pathlib import Path
from typing import Any

from cnnjepa.schemas import ConfigError, PretrainConfig, load_config
from cnnjepa.schemas.overrides import full_path
from cnnjepa.schemas.space import SearchSpace

# A search needs one figure: neither the published protocol nor the floors are probed, unless asked for.
_CHEAP_PROBE = {"probe.protocols": ["held_out"], "probe.floors": False}


def config_of(space: SearchSpace, changes: dict[str, Any], data: Path | None) -> PretrainConfig:
    """The config that a point of the space stands for. Raises ConfigError where the schema refuses it."""
    base = {full_path(key, "set:"): value for key, value in space.set.items()}
    return load_config(space.preset, data=data, changes={**_CHEAP_PROBE, **base, **changes})


def check_search(space: SearchSpace, data: Path | None) -> None:
    """Raises ConfigError for what no trial could run: a bad path or base config, pruning without probes."""
    for path in space.space:
        full_path(path, "--space")
    config = config_of(space, {}, data)
    if space.prune and not config.probe.every_epochs:
        raise ConfigError(
            "pruning needs intermediate probes, and probe.every_epochs is 0: --set probe.every_epochs=1, or --no-prune"
        )
