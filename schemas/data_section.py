"""The part of a data section that all sources of images share."""

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from cnnjepa.schemas.augmentation import AnyAugmentation, AugmentationConfig
from cnnjepa.schemas.extension import ExtensibleSection, Kind
from cnnjepa.schemas.extent import PixelExtent
from cnnjepa.schemas.paths import user_path
from cnnjepa.schemas.pixels import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    LARGEST,
    ChannelMean,
    ChannelStd,
    Depth,
    Measured,
    PixelKind,
    ValueRange,
)

INPUT_FIELDS = ("image_size", "channels", "dtype", "range", "mean", "std")
"""Fields with which an encoder is trained and which it needs for any image."""


class DataSection(ExtensibleSection):
    """The config of a source of images: the fields that all sources share."""

    EXTENDS: ClassVar[Kind] = "data"

    PATH: ClassVar[str | None] = None
    """Description of what must exist at the field `path`, for error messages; None for a source that checks its own
    paths, or has none."""

    DRAWN: ClassVar[bool] = False
    """True if this program draws the images, at any time and of any number."""

    LABELS_FROM_FILES: ClassVar[bool] = False
    """True if labels may come from folders or a table."""

    source: str
    """The source that this section configures."""

    @property
    def images_path(self) -> Path | None:
        """The field `path`; None for sources without it, and if it is not set."""
        return getattr(self, "path", None)

    @property
    def makes_missing_path(self) -> bool:
        """True if opening the source creates what is missing at `path`."""
        return False

    @property
    def dataset_name(self) -> str:
        """Name of the data set, for tables."""
        if self.images_path is None:
            return self.source.rpartition(":")[2]
        name = self.images_path.name
        for ending in (".tar.gz", ".tgz", ".tar"):
            name = name.removesuffix(ending)
        return f"{self.source}-{name}"

    @property
    def images_licence(self) -> str | None:
        """Licence of the images in words; None if it is not known."""
        return None

    image_size: PixelExtent = 224
    """Size of the training crop in pixels: the side of a square, or `[height, width]`. Each side is a multiple of the
    encoder's total stride. Source: docs/sources.md#patch-grid."""

    augmentation: AnyAugmentation = AugmentationConfig()
    """Cropping and flipping of training images, and further changes of your own."""

    channels: int = Field(default=3, ge=1, le=64)
    """Channels of every image: 1 (grey), 3 (RGB), 4 (RGB and alpha), or any number for `.npy` and TIFF files. A grey
    image fills three channels; a channel that would be lost is an error."""

    dtype: Depth = "uint8"
    """Type of the pixels, kept until they are normalised on the device: `uint8`, `uint16` or `float32`. An image of
    another depth is an error; `float32` accepts every type whose values it holds exactly."""

    range: ValueRange = "dtype"
    """Pixel values that are mapped to 0 and 1 before mean and std. `dtype`: 0 and 255 (uint8), 0 and 65535 (uint16),
    values as they are (float32). `[low, high]`: these values, and pixels outside are clipped. `percentile`: the 0.5th
    and 99.5th percentile of the training images, measured at the start and recorded by value."""

    mean: ChannelMean = IMAGENET_MEAN
    """Channel means of pixels mapped to 0..1; subtracted on the device. `imagenet`, `measured` (over the training
    images, recorded by value) or one number per channel. The default is `measured` if there are not 3 channels.
    Source: docs/sources.md#normalisation."""

    std: ChannelStd = IMAGENET_STD
    """Channel standard deviations; pixels are divided by them on the device. Values and default as for `mean`. Source:
    docs/sources.md#normalisation."""

    @model_validator(mode="before")
    @classmethod
    def _usual_statistics(cls, given: Any) -> Any:
        """ImageNet's numbers are about RGB: other images are measured unless numbers are given."""
        if not isinstance(given, dict) or given.get("channels", 3) == 3:
            return given
        return {"mean": "measured", "std": "measured", **given}

    @field_validator("std")
    @classmethod
    def _spread(cls, value: tuple[float, ...] | str) -> tuple[float, ...] | str:
        if not isinstance(value, str) and min(value) <= 0:
            raise ValueError("must be numbers above 0")
        return value

    @model_validator(mode="after")
    def _one_number_per_channel(self) -> Self:
        for name in ("mean", "std"):
            value = getattr(self, name)
            if not isinstance(value, str) and len(value) != self.channels:
                raise ValueError(
                    f"{name} has {len(value)} numbers and channels is {self.channels}; give one number per channel, or "
                    f"set data.{name}=measured"
                )
        return self

    @property
    def pixels(self) -> PixelKind:
        """The form in which images are read."""
        return PixelKind(self.channels, self.dtype)

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """Names of the fields that must be measured on the training images before a run."""
        return tuple(name for name in ("range", "mean", "std") if getattr(self, name) in ("percentile", "measured"))

    @property
    def bounds(self) -> tuple[float, float]:
        """The pixel values that are mapped to 0 and 1. Raises ValueError if they are still to be measured."""
        if self.range == "percentile":
            raise ValueError("data.range is still 'percentile'; measure the images before using it")
        return (0.0, LARGEST[self.dtype]) if self.range == "dtype" else self.range

    def measured_as(self, found: Measured) -> Self:
        """Return the section with measured values in place of `measured` and `percentile`."""
        values = {name: getattr(found, name) for name in self.unmeasured}
        return self.model_copy(update={name: value for name, value in values.items() if value is not None})

    resident: Literal["auto", "always", "never"] = "auto"
    """Keep the decoded training set in device memory and augment it there. `auto`: if all images have the same size and
    need at most `resident_limit_gib`; resolved before hashing."""

    resident_limit_gib: float = Field(default=2.0, gt=0)
    """Largest decoded training set, in GiB, that `resident: auto` keeps in memory. Not hashed."""

    on_error: Literal["raise", "skip"] = "raise"
    """Treatment of an unreadable image: `raise` stops the run and names the file; `skip` uses the next readable image
    instead, counts and logs the unreadable one, and reports it in result.json. Not hashed."""

    train_images: int | None = Field(default=None, ge=2)
    """Use only this many training images, evenly over classes; None = all."""

    val_images: int | None = Field(default=None, ge=2)
    """Use only this many validation images, evenly over classes; None = all."""

    labels: str = "auto"
    """Labels of the images. `auto`: the labels of the source; for a folder or an archive, those that its layout gives,
    if any. `none`: no labels; the run is not probed. For a folder or an archive also `folders` (folders are classes, or
    the run is refused) or the path of a table (CSV, TSV or Parquet) with the columns `path`, `label` and optionally
    `split` and a column of groups, or of a file in COCO's JSON format; `{split}` in the path stands for the name of
    each split. Not hashed; the fingerprint of the images covers their labels."""

    @field_validator("labels")
    @classmethod
    def _labels_of_this_source(cls, value: str) -> str:
        if value in ("auto", "none"):
            return value
        if not cls.LABELS_FROM_FILES:
            raise ValueError(f"{value!r} is for folders and archives of images; this source has auto and none")
        return value if value == "folders" else str(user_path(value))
