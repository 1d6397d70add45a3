"""The main table as a study: every method with the settings of its own preset, on the same images."""

from pathlib import Path
from typing import Any

from cnnjepa.ablations.study_files import validated
from cnnjepa.schemas import ConfigError, PretrainConfig, load_config, preset_names
from cnnjepa.schemas.fields import nearest
from cnnjepa.schemas.overrides import flat
from cnnjepa.schemas.study import Study

# Order of the methods in the table. Further presets of a base follow.
_ORDER = ("random_init", "supervised", "cnnjepa", "simclr", "byol", "vicreg", "ijepa", "ijepa-base", "spark", "lejepa")


def methods_of(preset: str) -> list[str]:
    """Return the methods that can be compared on a preset: its own, those with a preset `<preset>-<method>`, and
    random_init, which does not train. Raises ConfigError for a preset that does not use CNN-JEPA or has no other
    methods."""
    own = load_config(preset).method.name
    others = [name.removeprefix(f"{preset}-") for name in preset_names() if name.startswith(f"{preset}-")]
    if own != "cnnjepa" or not others:
        bases = [n for n in preset_names() if f"{n}-simclr" in preset_names()]
        raise ConfigError(f"preset {preset!r} has no other methods to compare with; must be one of {', '.join(bases)}")
    found = [own, "random_init", *others]
    return sorted(found, key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name))


def changes_of(preset: str, method: str) -> dict[str, Any]:
    """Return a method preset's changes to its base by full config path. Raises ConfigError for a method without a
    preset."""
    known = methods_of(preset)
    if method not in known:
        raise ConfigError(
            f"--methods: {method!r} must be one of {', '.join(known)} with preset {preset}{nearest(str(method), known)}"
        )
    if method == "cnnjepa":
        return {}
    if method == "random_init":
        return {"method.name": "random_init"}
    wanted = load_config(f"{preset}-{method}")
    base, other = (flat(config.model_dump(mode="json")) for config in (load_config(preset), wanted))
    gone = object()
    # Another method, encoder or optimiser inherits nothing from the base, so first all of its settings are listed,
    changes = {
        path: value
        for path, value in other.items()
        if path.startswith(("method.", "encoder.", "optimizer.")) or base.get(path, gone) != value
    }
    # and then those that it has by default are removed.
    for path in list(changes):
        fewer = {other: value for other, value in changes.items() if other != path}
        if _gives(preset, fewer, wanted):
            changes = fewer
    return changes


def _gives(preset: str, changes: dict[str, Any], wanted: PretrainConfig) -> bool:
    try:
        return load_config(preset, changes=changes) == wanted
    except ConfigError:  # a default, for example a patch size, does not fit the other settings
        return False


def method_config(preset: str, method: str, data: Path | None = None) -> PretrainConfig:
    """Return the config of a method's arm on the images at `data`, None for the preset's."""
    return load_config(preset, data=data, changes=changes_of(preset, method))


def method_study(
    preset: str, methods: list[Any] | None, fixed: dict[str, Any], epochs: dict[str, int] | None = None
) -> Study:
    """Return a study with one arm per method, by default all methods of the preset. `fixed` (full config path → value)
    overrides every arm's preset. `epochs` (method → epochs) then gives each method its own length, for equal time
    instead of equal images. Raises ConfigError."""
    chosen = methods if methods is not None else methods_of(preset)
    arms = {
        str(method): {path: value for path, value in changes_of(preset, method).items() if path not in fixed}
        for method in chosen
    }
    for method, length in (epochs or {}).items():
        arms[method]["runtime.epochs"] = length
    budget = "in the same time" if epochs else "from the same images"
    return validated(
        {
            "name": f"methods-{preset}" + ("-equal-time" if epochs else ""),
            "question": f"How does CNN-JEPA compare with other ways of learning {budget}?",
            "published": "main" if preset in ("in100", "in1k") else None,
            "preset": preset,
            "axes": {"method": arms},
            "baseline": {"method": "cnnjepa"} if "cnnjepa" in arms else None,
        },
        "benchmark",
    )
