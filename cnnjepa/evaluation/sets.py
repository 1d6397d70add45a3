"""The sets on which encoders are evaluated, read with the size, depth and normalisation that an encoder needs."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cnnjepa.data import DataSet, open_data
from cnnjepa.data.masks import folder_of_images
from cnnjepa.references.preprocessing import Preprocessing, images_config
from cnnjepa.schemas import ConfigError, DataConfig, PretrainConfig

EMBEDDED = "embedded"
"""Name of the images that this program draws, as a set."""


def images_of(
    on: str | None, preprocessing: Preprocessing, overrides: Sequence[str] = (), run: PretrainConfig | None = None
) -> DataConfig:
    """Return the data section of a set, as an encoder with this `preprocessing` needs it. `on` is the path of a set or
    `embedded`; None means the images of `run`, or the embedded ones without a run. `overrides` are `--set
    data.FIELD=VALUE` flags. Raises ConfigError for a section that is not valid."""
    if on is not None and on != EMBEDDED:
        images: Path | dict[str, Any] = folder_of_images(Path(on))
    elif on is None and run is not None:
        images = {**run.data.model_dump(mode="json"), "resident": "auto"}
    else:
        images = {"source": "synthetic"}
    try:
        return images_config(preprocessing, images, list(overrides))
    except ConfigError as error:
        raise ConfigError(f"{named(on)}: {error}") from None


def opened(section: DataConfig, on: str | None) -> DataSet:
    """Open a set. Raises ConfigError for a set that cannot be opened."""
    try:
        return open_data(section, measured=False)
    except ConfigError as error:
        raise ConfigError(f"{named(on)}: {error}") from None


def identity_of(section: DataConfig, images: DataSet) -> str:
    """Return what identifies the images that are used, their labels and their groups. `DataSet.fingerprint` is that of
    the whole set, of which `data.train_images` and `data.val_images` choose a part."""
    parts = [None, None] if section.DRAWN else [section.train_images, section.val_images]
    whole = images.probed_fingerprint
    return hashlib.sha256(f"{whole} {parts}".encode()).hexdigest() if any(parts) else whole


def named(on: str | None) -> str:
    """Return a set in the words of the command line, for messages."""
    return "the run's images" if on is None else f"--on {on}"
