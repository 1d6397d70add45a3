"""The columns of images and labels in a data set of the library `datasets`."""

from dataclasses import dataclass
from typing import Any

from cnnjepa.schemas import ConfigError, HuggingFaceData
from cnnjepa.schemas.fields import nearest

# Names of a column of labels that is not marked as one, in the order in which they are looked for.
_LABELS = ("label", "labels", "class", "target", "category")


@dataclass
class Columns:
    """The columns that are used."""

    image: str
    label: str | None
    """None without labels."""
    names: list[str] | None
    """Names of the classes by number; None if the labels themselves are the names."""


def find_columns(library: Any, features: Any, config: HuggingFaceData, where: str) -> Columns:
    """Return the columns that the config names, or else the only ones that can be meant. Raises ConfigError if there
    are none or several."""
    label = None if config.labels == "none" else _label(library, features, config, where)
    names = list(features[label].names) if label and isinstance(features[label], library.ClassLabel) else None
    return Columns(_image(library, features, config, where), label, names)


def _image(library: Any, features: Any, config: HuggingFaceData, where: str) -> str:
    if config.image_column is not None:
        return _named("image_column", config.image_column, features, where)
    marked = [name for name, kind in features.items() if isinstance(kind, library.Image)]
    found = marked or [name for name, kind in features.items() if _is_binary(kind)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigError(f"{where} has no column of images; its columns are {', '.join(features)}")
    raise ConfigError(f"{where} has several columns of images ({', '.join(found)}); choose with data.image_column=NAME")


def _is_binary(kind: Any) -> bool:
    """Return whether a column holds bytes, as encoded images do that other programs wrote."""
    inner = kind.get("bytes") if isinstance(kind, dict) else kind
    return getattr(inner, "dtype", None) in ("binary", "large_binary")


def _label(library: Any, features: Any, config: HuggingFaceData, where: str) -> str | None:
    if config.label_column is not None:
        return _named("label_column", config.label_column, features, where)
    marked = [name for name, kind in features.items() if isinstance(kind, library.ClassLabel)]
    if len(marked) > 1:
        raise ConfigError(
            f"{where} has several columns of labels ({', '.join(marked)}); choose with data.label_column=NAME, or use "
            "data.labels=none"
        )
    plain = [name for name in _LABELS if name in features and _is_plain(features[name])]
    return next(iter(marked or plain), None)


def _is_plain(kind: Any) -> bool:
    """Return whether a column holds whole numbers or text."""
    name = str(getattr(kind, "dtype", ""))
    return name.startswith(("int", "uint")) or name in ("string", "large_string")


def _named(field: str, name: str, features: Any, where: str) -> str:
    if name not in features:
        raise ConfigError(
            f"data.{field} {name!r} is not in {where}; must be one of {', '.join(features)}"
            f"{nearest(name, list(features))}"
        )
    return name
