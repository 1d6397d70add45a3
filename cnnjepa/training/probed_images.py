"""The images on which a run is probed: its own, perhaps at another path, or other labelled sets."""

from pathlib import Path
from typing import Any

from cnnjepa.data.open import DataSet, fingerprint_of, open_data, open_sources
from cnnjepa.errors import RunError
from cnnjepa.schemas import ConfigError, DataConfig, PretrainConfig, with_sections
from cnnjepa.schemas.data_section import INPUT_FIELDS
from cnnjepa.schemas.load import data_at, refuse_two_places
from cnnjepa.schemas.overrides import parse_override, parse_overrides

# Settings that may differ for a run that is already trained: how it is probed and executed, where its images are,
_MAY_CHANGE = ("probe.", "runtime.device", "runtime.workers", "runtime.threads", "data.path")
# how they are read (which changes no figure),
_READING = ("data.resident", "data.resident_limit_gib", "data.on_error", "data.download")
# and which images they are, if they are not the run's own.
_WHICH = (
    "data.source", "data.name", "data.train_split", "data.val_split", "data.train_file", "data.val_file",
    "data.train_images", "data.val_images", "data.labels", "data.val_fraction", "data.val_seed", "data.groups",
    "data.dtype", "data.range", "data.hub", "data.subset", "data.image_column", "data.label_column",
)  # fmt: skip


def probe_config(
    config: PretrainConfig, settings: dict[str, Any], overrides: list[str], data: Path | None
) -> tuple[PretrainConfig, bool]:
    """Return the config with which the run is probed, and whether that is on its own images. `config` is the run's
    config, `settings` are the hashed settings of its checkpoint, and `data` is the path of other images or the new path
    of the run's own.

    Other images inherit the settings that the encoder needs: size, channels, type, range, mean and standard deviation.
    All other settings, such as numbers of images, splits and residency, are decided again. Raises ConfigError for a
    setting that a trained run cannot change."""
    parsed = dict(parse_overrides(overrides))
    if data is not None:
        refuse_two_places(data, parsed)
    if "data.path" in parsed:
        data = Path(str(parsed["data.path"]))
        overrides = [text for text in overrides if parse_override(text)[0] != "data.path"]
    own = data is None or _moved(config.data, data, settings["data"]["fingerprint"])
    for path in parsed:
        allowed = (*_MAY_CHANGE, *_READING, *(() if own else _WHICH))
        if not path.startswith(allowed[:1]) and path not in allowed:
            which = "; with --data PATH to other images also " + ", ".join(_WHICH) if own else ""
            raise ConfigError(
                f"--set {path}: a trained run cannot change it; it must be one of {', '.join(allowed)}{which}"
            )
    section = config.data.model_dump(mode="json")
    if data is not None:
        if own:
            section |= {name: value for name, value in data_at(data, section["source"]).items() if name != "source"}
        else:
            section = {name: section[name] for name in INPUT_FIELDS} | data_at(data, parsed.get("data.source"))
    sections = {"data": section}
    if not own:  # they are what is probed
        sections["probe"] = {
            **config.probe.model_dump(mode="json"),
            "data": [],
            "data_fingerprints": [],
            "held_out_groups": None,
        }
    return with_sections(config, sections, overrides), own


def open_probe_sets(config: PretrainConfig) -> dict[str, DataSet]:
    """Open the sets of `probe.data`, with the image size and normalisation of the config. Returns them by name, in
    order; sets of the same name are numbered.

    Raises ConfigError for a set that cannot be opened, has no labels, or is given twice.
    """
    dump, sets = config.data.model_dump(mode="json"), dict[str, DataSet]()
    for one in config.probe.sets:
        path = one.path
        # Not resident: a probe reads every image a few times.
        inherited = {name: dump[name] for name in (*INPUT_FIELDS, "on_error")}
        section = inherited | data_at(path) | one.settings | {"resident": "never"}
        try:
            # They are normalised with the numbers of the training images.
            data = open_data(with_sections(config, {"data": section}).data, measured=False)
        except ConfigError as error:
            raise ConfigError(f"--probe-data {path} (probe.data): {error}") from None
        if not data.labelled:
            raise ConfigError(
                f"--probe-data {path} (probe.data) has no labels, which probes need: {data.found or data.name}"
            )
        if any(data.fingerprint == other.fingerprint for other in sets.values()):
            raise ConfigError(f"--probe-data {path} (probe.data): the same images are given twice")
        same = sum(name.partition(" (")[0] == data.name for name in sets)
        sets[f"{data.name} ({same + 1})" if same else data.name] = data
    return sets


def probe_fingerprints(data: DataSet) -> list[str]:
    """Return the fingerprints of the sets of `probe.data` and their groups, in order."""
    return [images.probed_fingerprint for images in data.probe_sets.values()]


def _moved(own: DataConfig, place: Path, fingerprint: str) -> bool:
    """Return whether the run's own images are at `place`."""
    if "path" not in type(own).model_fields:
        return False
    at = data_at(place, own.source)
    moved = own.model_copy(update={**at, "path": Path(at["path"])})
    try:
        return fingerprint_of(open_sources(moved)) == fingerprint
    except (ConfigError, RunError, OSError):  # the run's source cannot read it, so these are other images
        return False
