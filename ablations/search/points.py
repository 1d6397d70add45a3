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


def check_search(space: SearchSpace, data: Path | None) -> PretrainConfig:
    """The base config. Raises ConfigError for what no trial could run: a bad path, base config or value, a figure that
    would not be measured, pruning without probes."""
    paths = [full_path(path, "--space") for path in space.space]
    twice = [path for place, path in enumerate(paths) if path in paths[:place]]
    if twice:
        raise ConfigError(f"--space {twice[0]}: given twice; give every setting once")
    config = config_of(space, {}, data)
    if "held_out" not in config.probe.protocols:
        raise ConfigError("a search is judged on the held-out tenth, so probe.protocols must have held_out")
    if space.prune and not config.probe.every_epochs:
        raise ConfigError(
            "pruning needs intermediate probes, and probe.every_epochs is 0: --set probe.every_epochs=1, or --no-prune"
        )
    for path, asked in zip(paths, space.space.values(), strict=True):
        for value in asked.ends:
            try:
                config_of(space, {path: value}, data)
            except ConfigError as error:
                if str(error).startswith(path):  # of this field alone; what others must be for it, a trial finds out
                    raise ConfigError(f"--space {path}={asked}: {error}") from None
    return config
