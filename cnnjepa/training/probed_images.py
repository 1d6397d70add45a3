"""The images that a trained run is probed on: its own, perhaps at another place, or others."""

from pathlib import Path
from typing import Any

from cnnjepa.data.open import fingerprint_of, open_sources
from cnnjepa.errors import RunError
from cnnjepa.schemas import ConfigError, DataConfig, PretrainConfig, with_sections
from cnnjepa.schemas.load import data_at
from cnnjepa.schemas.overrides import parse_override, parse_overrides

# What may be set differently of a run that is trained already: how it is probed and carried out, where images are,
_MAY_CHANGE = ("probe.", "runtime.device", "runtime.workers", "runtime.threads", "data.path")
# how they are read, which changes no figure,
_READING = ("data.resident", "data.resident_limit_gib", "data.on_error", "data.download")
# and which they are, where they are not the run's own.
_WHICH = (
    "data.source", "data.name", "data.train_split", "data.val_split", "data.train_file", "data.val_file",
    "data.train_images", "data.val_images",
)  # fmt: skip
# What an encoder was trained with and needs of any image.
_OF_THE_ENCODER = ("image_size", "mean", "std")


def probe_config(
    config: PretrainConfig, settings: dict[str, Any], overrides: list[str], data: Path | None
) -> tuple[PretrainConfig, bool]:
    """(the config that the run is probed with, whether on its own images). `config` is the run's, `settings` are what
    its checkpoint is named by, `data` is where other images are, or where the run's own have been moved to.

    Other images inherit what the encoder needs: size, mean and standard deviation. Everything else, such as numbers of
    images, splits and residency, is decided anew. Raises ConfigError for a setting that a trained run cannot change.
    """
    parsed = dict(parse_overrides(overrides))
    if "data.path" in parsed:
        if data is not None:
            raise ConfigError(f"--data {data} and --set data.path={parsed['data.path']} both say where; give one")
        data = Path(str(parsed["data.path"]))
        overrides = [text for text in overrides if parse_override(text)[0] != "data.path"]
    own = data is None or _moved(config.data, data, settings["data"]["fingerprint"])
    for path in parsed:
        allowed = (*_MAY_CHANGE, *_READING, *(() if own else _WHICH))
        if not path.startswith(allowed[:1]) and path not in allowed:
            which = "; with --data PATH to other images also " + ", ".join(_WHICH) if own else ""
            raise ConfigError(
                f"--set {path}: a trained run cannot change it; possible here are {', '.join(allowed)}{which}"
            )
    section = config.data.model_dump(mode="json")
    if data is not None:
        if own:
            section |= {name: value for name, value in data_at(data, section["source"]).items() if name != "source"}
        else:
            section = {name: section[name] for name in _OF_THE_ENCODER} | data_at(data, parsed.get("data.source"))
    return with_sections(config, {"data": section}, overrides), own


def _moved(own: DataConfig, place: Path, fingerprint: str) -> bool:
    """Whether the run's own images are at `place`."""
    if own.source == "synthetic":
        return False
    at = data_at(place, own.source)
    moved = own.model_copy(update={**at, "path": Path(at["path"])})
    try:
        return fingerprint_of(open_sources(moved)) == fingerprint
    except (ConfigError, RunError, OSError):  # it is not what the run's source reads, so these are other images
        return False
