"""The configs of a search's points."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnjepa.ablations.search.objective import has_loss, objective_of
from cnnjepa.ablations.study_folder import TrialRecord
from cnnjepa.schemas import ConfigError, PretrainConfig, load_config
from cnnjepa.schemas.numbers import exact
from cnnjepa.schemas.overrides import full_path, full_paths
from cnnjepa.schemas.space import METRIC, SearchSpace

if TYPE_CHECKING:  # it imports torch, which takes seconds; search spaces are checked before that
    from cnnjepa.ablations.data_facts import Resolver
    from cnnjepa.ablations.resources import Resources

# A search needs one figure: neither the published protocol nor the floors are probed, unless requested.
_CHEAP_PROBE = {"probe.protocols": ["held_out"], "probe.floors": False}


def config_of(space: SearchSpace, changes: dict[str, Any], data: Path | None) -> PretrainConfig:
    """Return the config of a point of the space. Raises ConfigError when the schema refuses it."""
    base = full_paths(space.set, "set:")
    return load_config(space.preset, data=data, changes={**_CHEAP_PROBE, **base, **changes})


def trial_record(
    space: SearchSpace, choices: dict[str, Any], data: Path | None, resources: "Resources", resolver: "Resolver"
) -> TrialRecord:
    """Return the trial of a point, named as its run folder. Raises ConfigError when no trial can have the point."""
    changes = changes_of(choices, space)
    asked = config_of(space, changes, data)
    asked = asked.model_copy(update={"runtime": asked.runtime.model_copy(update={"threads": int(resources.cpus)})})
    config, identity, facts = resolver(asked)
    label = ", ".join(
        f"{path.split('.')[-1]}={exact(value) if isinstance(value, float) else value}"
        for path, value in choices.items()
    )
    return TrialRecord(
        arm=label, choices=choices, changes=changes, baseline=False, seed=config.runtime.seed,
        pretrain_hash=identity.pretrain_hash, probe_hash=identity.probe_hash, dataset=facts.name,
        train_images=facts.size.trained(config), world_size=resources.workers, config=config,
    )  # fmt: skip


def resolver_of(resources: "Resources", root: Path) -> "Resolver":
    """Return a resolver that names trials as the processes with these resources do, below this root."""
    from cnnjepa.ablations.data_facts import Resolver

    return Resolver("cuda" if resources.gpus else "cpu", resources.workers, root)


def changes_of(choices: dict[str, Any], space: SearchSpace) -> dict[str, Any]:
    """Return the changes of the choices (the search's key → value, or an arm's name): full config path → value. Raises
    ConfigError for a path that does not exist."""
    changes: dict[str, Any] = {}
    for key, choice in choices.items():
        asked = space.space[key]
        if asked.kind == "arms":
            changes |= full_paths(asked.arms[choice], f"{key}, arm {choice}:")
        else:
            changes[full_path(key, "--space")] = choice
    return changes


def check_search(space: SearchSpace, data: Path | None) -> PretrainConfig:
    """Return the base config. Raises ConfigError if no trial could run: for a bad path, base config or value, a figure
    that would not be measured, or pruning without probes."""
    for name, asked in space.space.items():
        if asked.kind == "arms" and _is_path(name):
            raise ConfigError(f"--space {name}: is a config path; give the arms another name")
    paths = _paths(space)
    every = [path for key in paths for path in paths[key]]
    twice = [path for place, path in enumerate(every) if path in every[:place]]
    if twice:
        raise ConfigError(f"--space {twice[0]}: given twice; give every setting once")
    config = config_of(space, {}, data)
    objective = objective_of(space)
    if objective.name in ("knn", "linear") and "held_out" not in config.probe.protocols:
        raise ConfigError("probe.protocols must contain held_out: a search optimises the figure on the held-out tenth")
    if space.prune and not config.probe.every_epochs:
        raise ConfigError(
            "pruning needs intermediate probes, but probe.every_epochs is 0: --set probe.every_epochs=1, or --no-prune"
        )
    if objective.name == "loss" and not has_loss(config):
        raise ConfigError(
            f"--objective loss: method {config.method.name} has no loss on held-out images that needs no labels; "
            "choose another objective or method"
        )
    if objective.name.startswith(METRIC) and not config.probe.metrics:
        raise ConfigError(
            f"--objective {objective.name}: probe.metrics is empty; name the metric with --set probe.metrics=…"
        )
    for key, asked in space.space.items():
        for value in asked.ends:
            try:
                config_of(space, changes_of({key: value}, space), data)
            except ConfigError as error:
                # Only errors of these fields are raised here. Conflicts with other fields are found when a trial
                # starts.
                if str(error).startswith(tuple(paths[key])):
                    where = f"{key}, arm {value}" if asked.kind == "arms" else f"{paths[key][0]}={asked}"
                    raise ConfigError(f"--space {where}: {error}") from None
    for place, point in enumerate(space.first):
        if len(point) == len(space.space) and (refusal := refusal_of(point, space, data)):
            raise ConfigError(f"first, point {place}: {refusal}")
    return config


def loss_warning(space: SearchSpace) -> str | None:
    """Return a warning if the search compares losses that differ in meaning; None otherwise."""
    changing = [path for paths in _paths(space).values() for path in paths if path.startswith(("method.", "data."))]
    if space.objective != "loss" or not changing:
        return None
    return (
        f"--objective loss compares losses of different {', '.join(changing)}; a change of the method, of its masks or "
        "of its views makes another loss, and a lower one need not be better"
    )


def refusal_of(choices: dict[str, Any], space: SearchSpace, data: Path | None) -> str | None:
    """Return why no trial can have this point; None if one can."""
    try:
        config_of(space, changes_of(choices, space), data)
    except ConfigError as error:
        return str(error)
    return None


def _is_path(name: str) -> bool:
    try:
        full_path(name)
    except ConfigError:
        return False
    return True


def _paths(space: SearchSpace) -> dict[str, list[str]]:
    """Return the search's key → the full config paths that it sets."""
    return {
        key: list(dict.fromkeys(path for value in asked.ends for path in changes_of({key: value}, space)))
        for key, asked in space.space.items()
    }
