"""Images: their source and how they are cropped."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from cnnjepa.schemas.augmentation import AnyAugmentation, AugmentationConfig
from cnnjepa.schemas.extension import BASES, ExtensibleSection, Kind, extensible
from cnnjepa.schemas.paths import UserPath, user_path
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

DEFAULT_VAL_SPLIT = "val"

LABEL_WORDS = ("auto", "none", "folders")
"""Values of `data.labels` that are not the path of a table."""

# Licences of the images of torchvision's data sets.
_LICENCES = {
    "cifar10": "stated by none of its sources; the images come from 80 Million Tiny Images, since withdrawn",
    "cifar100": "stated by none of its sources; the images come from 80 Million Tiny Images, since withdrawn",
    "stl10": "none stated; the images come from ImageNet, whose terms allow non-commercial research and education",
    "imagenette": "the selection is Apache-2.0; the images are ImageNet's, whose terms allow non-commercial research "
    "and education",
}


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

    image_size: int = Field(default=224, ge=8)
    """Side of the training crop in pixels. Source: docs/sources.md#patch-grid."""

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
    """Labels of the images. `auto`: those that the source has; for a folder or an archive, those that its layout gives,
    if it gives any. `none`: no labels; the run is not probed. For a folder or an archive also `folders` (folders are
    classes, or the run is refused) or the path of a table (CSV, TSV or Parquet) with the columns `path`, `label` and,
    if wanted, `split` and a column of groups. Not hashed; the fingerprint of the images covers their labels."""

    @field_validator("labels")
    @classmethod
    def _labels_of_this_source(cls, value: str) -> str:
        if value in ("auto", "none"):
            return value
        if not cls.LABELS_FROM_FILES:
            raise ValueError(f"{value!r} is for folders and archives of images; this source has auto and none")
        return value if value == "folders" else str(user_path(value))


class SyntheticData(DataSection):
    """The embedded data set: drawn by `cnnjepa.data.synthetic`, deterministic, no download."""

    DRAWN: ClassVar[bool] = True

    LEFT_BEHIND: ClassVar[tuple[str, ...]] = ("image_size", "train_images", "val_images")
    """The number and size of drawn images do not apply to other images: these values are dropped if another source is
    chosen."""

    source: Literal["synthetic"] = "synthetic"
    """The source that this section configures."""

    image_size: int = Field(default=32, ge=16, le=256)
    """Side of an image in pixels; images are drawn at this size."""

    train_images: int = Field(default=6000, ge=2)
    """Number of training images drawn."""

    val_images: int = Field(default=2000, ge=2)
    """Number of validation images drawn."""

    drawing_seed: int = Field(default=0, ge=0, le=2**62)
    """Seed of the data set itself; independent of the run's seed."""

    @property
    def dataset_name(self) -> str:
        return f"synthetic-{self.image_size}"

    @property
    def images_licence(self) -> str:
        return "none needed: the images were drawn by CNN-JEPA Bench (Apache-2.0)"

    @model_validator(mode="after")
    def _drawn_in_rgb(self) -> Self:
        if self.pixels != PixelKind():
            raise ValueError(
                f"source synthetic draws 3 channels of uint8; channels {self.channels} of {self.dtype} need images of "
                "your own (--data PATH)"
            )
        return self


class FolderData(DataSection):
    """Images in a directory, a tar archive of one, or a packed set, read in place. Folders give splits and classes if
    they are laid out so; images without labels may lie anywhere."""

    LABELS_FROM_FILES: ClassVar[bool] = True

    PATH: ClassVar[str | None] = "the images' directory or .tar archive"

    source: Literal["folder"] = "folder"
    """The source that this section configures."""

    path: UserPath | None = None
    """The directory, a `.tar`, `.tar.gz` or `.tgz` archive of one, or the output of `cnnjepa data pack`. Given with
    `--data`."""

    train_split: str = "train"
    """Name of the training folder. Not hashed."""

    val_split: str = DEFAULT_VAL_SPLIT
    """Name of the validation folder. Not hashed."""

    val_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Share of the training images that is held out as validation images if the set has none; stratified by class where
    there are labels. Source: ours. Not hashed; the fingerprint of the images covers the split."""

    val_seed: int = Field(default=0, ge=0)
    """Seed of that split; the same for all training seeds, so that runs are compared on the same images. Not hashed."""

    groups: int | str | None = None
    """Images that must not be divided between training and validation, such as those of one patient or scene: the name
    of a column of the table `labels`, or the level of a folder in the path, counted from 1 below the split's folder (-1
    = the folder that holds the image). Not hashed."""

    @field_validator("groups")
    @classmethod
    def _levels_count_from_one(cls, value: int | str | None) -> int | str | None:
        if value == 0:
            raise ValueError("counts folders from 1; -1 is the folder that holds the image")
        return value

    @model_validator(mode="after")
    def _columns_need_a_table(self) -> Self:
        if isinstance(self.groups, str) and self.labels in LABEL_WORDS:
            raise ValueError(
                f"groups {self.groups!r} is a column, but data.labels={self.labels} is no table; give "
                "data.labels=FILE, or the level of a folder (1, 2, …)"
            )
        return self


class TorchvisionData(DataSection):
    """A data set that torchvision can read (and, on request, download)."""

    PATH: ClassVar[str | None] = "the folder of torchvision's files"

    source: Literal["torchvision"] = "torchvision"
    """The source that this section configures."""

    name: Literal["cifar10", "cifar100", "stl10", "imagenette"] = "cifar10"
    """Name of the data set."""

    path: UserPath | None = None
    """Folder of the data set's files, which need not exist before a download. Given with `--data`."""

    download: bool = False
    """Download missing files."""

    @property
    def makes_missing_path(self) -> bool:
        return self.download

    @property
    def dataset_name(self) -> str:
        return self.name

    @property
    def images_licence(self) -> str:
        return _LICENCES[self.name]


class HDF5Data(DataSection):
    """The authors' layout: groups `images` and `labels`, keys "0".."N-1", encoded bytes."""

    PATH: ClassVar[str | None] = "the folder of the two HDF5 files"

    source: Literal["hdf5"] = "hdf5"
    """The source that this section configures."""

    path: UserPath | None = None
    """Folder that holds the two files. Given with `--data`."""

    train_file: str = "train.h5"
    """Name of the training file. Not hashed."""

    val_file: str = "val.h5"
    """Name of the validation file. Not hashed."""


BASES["data"] = DataSection

IMPLEMENTATIONS: dict[type[DataSection], str] = {
    SyntheticData: "cnnjepa.data.resident:open_synthetic",
    FolderData: "cnnjepa.data.folder:open_folder",
    TorchvisionData: "cnnjepa.data.torchvision_sets:open_torchvision",
    HDF5Data: "cnnjepa.data.hdf5:open_hdf5",
}
"""Config class of every built-in source, and the function that opens both of its splits, imported when a run needs
it."""

if TYPE_CHECKING:
    DataConfig = DataSection
else:
    DataConfig = extensible("data", IMPLEMENTATIONS)
