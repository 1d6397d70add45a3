"""The config of a run that continues another run, from what the command line gives. torch is not imported here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnjepa.schemas.config import PretrainConfig
from cnnjepa.schemas.errors import ConfigError
from cnnjepa.schemas.load import data_at, read_config, refuse_two_places, with_sections
from cnnjepa.schemas.overrides import merge, nested, parse_overrides
from cnnjepa.warm_start.location import find_run


def continued_config(
    named: str, overrides: list[str], data: Path | None = None, changes: Mapping[str, Any] | None = None
) -> PretrainConfig:
    """Return the config of the run `named` (a folder or a hash) with `--set` flags and a new path of its images;
    `changes` are full config paths with their values. Raises ConfigError if there is no such run, or no further
    epochs."""
    try:
        run = find_run(named)
    except ConfigError as error:
        raise ConfigError(
            f"--from {named}: {error}. A run that has begun to continue it does not need it: resume that run with "
            "--config RUN/config.yaml --out RUN --resume"
        ) from None
    before = read_config(run / "config.yaml")
    dump = before.model_dump(mode="json")
    tree = {**dump, "runtime": {**dump["runtime"], "continues": str(run), "continues_hash": ""}}
    if data is not None:
        refuse_two_places(data, dict(parse_overrides(overrides)))
        tree["data"] = {**dump["data"], **data_at(data, dump["data"]["source"])}
    for path, value in (changes or {}).items():
        tree = merge(tree, nested(path, value))
    config = with_sections(before, tree, overrides)
    if config.runtime.epochs <= before.runtime.epochs:
        raise ConfigError(
            f"--from {named}: that run has {before.runtime.epochs} epochs; give a larger total, for example --set "
            f"runtime.epochs={2 * before.runtime.epochs}"
        )
    return config


def default_folder(config: PretrainConfig) -> Path:
    """Return the run folder of a continued run if none is given: `runs/RUN-N-epochs`."""
    source = config.runtime.continues
    assert source is not None
    name = source.name[:12] if len(source.name) == 64 else source.name
    return Path("runs") / f"{name}-{config.runtime.epochs}-epochs"
