"""How images become the inputs of an encoder. torch is not imported here."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from cnnjepa.schemas.base import Section
from cnnjepa.schemas.data import DataConfig, FolderData, SyntheticData
from cnnjepa.schemas.data_section import INPUT_FIELDS
from cnnjepa.schemas.errors import ConfigError
from cnnjepa.schemas.extent import extent_of, height_width
from cnnjepa.schemas.load import data_at, explain
from cnnjepa.schemas.overrides import merge, nested, parse_overrides, selectors_first
from cnnjepa.schemas.pixels import LARGEST, Depth


@dataclass(frozen=True)
class Preprocessing:
    """Size, channels and normalisation of an encoder's inputs."""

    image_size: tuple[int, int]
    """Height and width of an input in pixels."""
    resize: int | None
    """Length of an image's shorter side before the centre crop; None for `image_size`."""
    channels: int
    """Channels of an image."""
    dtype: Depth
    """Type of the pixels that are read."""
    range: tuple[float, float] | Literal["dtype"]
    """Pixel values that are mapped to 0 and 1, see `data.range`."""
    mean: tuple[float, ...]
    """Mean per channel of pixels mapped to 0..1."""
    std: tuple[float, ...]
    """Standard deviation per channel of pixels mapped to 0..1."""

    @property
    def section(self) -> dict[str, Any]:
        """The fields of a data section that describe the inputs."""
        return {name: getattr(self, name) for name in INPUT_FIELDS} | {"image_size": extent_of(*self.image_size)}

    @property
    def bounds(self) -> tuple[float, float]:
        """The pixel values that are mapped to 0 and 1."""
        return self.config.bounds

    @property
    def config(self) -> DataConfig:
        """A data section without images, for `Normalizer` and `evaluation_batches`."""
        return FolderData.model_validate(self.section)


@dataclass(frozen=True)
class PreprocessingOverrides:
    """The user's statements about the inputs of an encoder; None where there are none."""

    image_size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    channels: int | None = None

    @classmethod
    def parsed(
        cls, image_size: str | None = None, mean: str | None = None, std: str | None = None, channels: int | None = None
    ) -> "PreprocessingOverrides":
        """Return the values of the options `--image-size` (224, or 128x256 for height x width), `--mean`, `--std` (one
        number per channel with commas between them) and `--channels`. Raises ConfigError."""
        return cls(_size(image_size), _numbers("--mean", mean), _numbers("--std", std), channels)


NO_OVERRIDES = PreprocessingOverrides()
_OPTIONS = {"image_size": "--image-size", "mean": "--mean", "std": "--std", "channels": "--channels"}


def resolved(known: dict[str, Any], overrides: PreprocessingOverrides, named: str) -> Preprocessing:
    """Return the preprocessing from what an encoder's description states (fields of `Preprocessing`, where `image_size`
    may be one number) and what the user states, which comes first. `named` is the encoder in messages.

    Raises ConfigError that names the options to give if something is unknown, and for values that do not fit together.
    """
    stated = {field.name: getattr(overrides, field.name) for field in fields(overrides)}
    given = {name: value for name, value in stated.items() if value is not None}
    fixed = known.get("channels")
    if fixed is not None and given.get("channels", fixed) != fixed:
        raise ConfigError(f"{named} is for {fixed} channels; --channels {given['channels']} does not fit it")
    values: dict[str, Any] = {"resize": None, "channels": 3, "dtype": "uint8", "range": "dtype", **known, **given}
    missing = [option for name, option in _OPTIONS.items() if values.get(name) is None]
    if missing:
        raise ConfigError(f"{named} does not say how its images are prepared; give {', '.join(missing)}")
    values["image_size"] = height_width(values["image_size"])
    if "image_size" in given and known.get("resize") and known.get("image_size"):
        values["resize"] = min(values["image_size"]) * known["resize"] // min(height_width(known["image_size"]))
    for name in ("mean", "std"):
        values[name] = tuple(float(value) for value in values[name])
    if values["resize"] == min(values["image_size"]):
        values["resize"] = None
    if not isinstance(values["range"], str):
        low, high = (float(value) for value in values["range"])
        whole = values["dtype"] != "float32" and (low, high) == (0.0, LARGEST[values["dtype"]])
        values["range"] = "dtype" if whole else (low, high)
    found = Preprocessing(**values)
    try:
        _ = found.config
    except ValidationError as error:
        raise ConfigError(f"{named}: {explain(error, FolderData, found.section)}") from None
    if found.resize is not None and found.resize < min(found.image_size):
        raise ConfigError(
            f"{named}: images are resized to {found.resize} px, less than the {min(found.image_size)} px of the crop"
        )
    return found


def for_channels(known: dict[str, Any], overrides: PreprocessingOverrides) -> dict[str, Any]:
    """Return what a description states, for a network that can be built for other channels: without the numbers per
    channel if the user states another number of channels."""
    if overrides.channels in (None, known.get("channels")):
        return known
    return {name: value for name, value in known.items() if name not in ("channels", "mean", "std")}


class _Images(Section):
    data: DataConfig = SyntheticData()


def images_config(
    preprocessing: Preprocessing, images: Path | Mapping[str, Any], overrides: list[str] | tuple[str, ...] = ()
) -> DataConfig:
    """Return the data section of images, prepared for an encoder. `images` is their path, or a data section of which
    the fields that belong to the encoder are replaced. `overrides` are `--set` flags for the other fields. Raises
    ConfigError for fields of the encoder, and for invalid values."""
    parsed, placed = parse_overrides(overrides), isinstance(images, Path)
    section = data_at(images, dict(parsed).get("data.source")) if isinstance(images, Path) else dict(images)
    tree: dict[str, Any] = {"data": {**section, **preprocessing.section}}
    fixed = (*preprocessing.section, *(("path",) if placed else ()))
    for name, value in selectors_first(parsed):
        of, _, field = name.partition(".")
        if of != "data" or field in fixed or field.startswith("augmentation"):
            raise ConfigError(
                f"--set {name}: it does not apply here; give a field of data that says where the images are or how "
                "they are read, such as data.val_split, data.labels or data.on_error"
            )
        tree = merge(tree, nested(name, value))
    return section_config(tree["data"])


def section_config(section: dict[str, Any]) -> DataConfig:
    """Return a data section from its fields. Raises ConfigError for invalid ones."""
    try:
        return _Images.model_validate({"data": section}).data
    except ValidationError as error:
        raise ConfigError(explain(error, _Images, {"data": section})) from None


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.strip().isdigit() for side in sides):
        raise ConfigError(f"--image-size {text}: give a number of pixels, or height x width such as 128x256")
    return int(sides[0]), int(sides[-1])


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.strip("[] ").split(","))
    except ValueError:
        raise ConfigError(
            f"{option} {text}: give one number per channel with commas between them, such as 0.485,0.456,0.406"
        ) from None
