"""The sources of images. `data_section.py` has what all of them share."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from cnnjepa.schemas.data_section import DataSection
from cnnjepa.schemas.extension import BASES, extensible
from cnnjepa.schemas.extent import Extent, at_least, height_width
from cnnjepa.schemas.paths import UserPath
from cnnjepa.schemas.pixels import PixelKind

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


class SyntheticData(DataSection):
    """The embedded data set: drawn by `cnnjepa.data.synthetic`, deterministic, no download."""

    DRAWN: ClassVar[bool] = True

    LEFT_BEHIND: ClassVar[tuple[str, ...]] = ("image_size", "train_images", "val_images")
    """The number and size of drawn images do not apply to other images: these values are dropped if another source is
    chosen."""

    source: Literal["synthetic"] = "synthetic"
    """The source that this section configures."""

    image_size: Annotated[Extent, at_least(16, 256)] = 32
    """Size of the training crop in pixels, 16 to 256 per side; images are drawn at this size. For `[height, width]`
    they are squares of the longer side."""

    train_images: int = Field(default=6000, ge=2)
    """Number of training images drawn."""

    val_images: int = Field(default=2000, ge=2)
    """Number of validation images drawn."""

    drawing_seed: int = Field(default=0, ge=0, le=2**62)
    """Seed of the data set itself; independent of the run's seed."""

    @property
    def dataset_name(self) -> str:
        return f"synthetic-{self.drawn_size}"

    @property
    def drawn_size(self) -> int:
        """Side in pixels of the images that are drawn."""
        return max(height_width(self.image_size))

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


class HuggingFaceData(DataSection):
    """A data set of the library `datasets`: a name on the hub, a folder that `save_to_disk` wrote, Parquet files, or a
    folder of images with its metadata (`imagefolder`). Images are read at random from its Arrow files."""

    PATH: ClassVar[str | None] = "the folder or Parquet file of the data set"

    source: Literal["huggingface"] = "huggingface"
    """The source that this section configures."""

    path: UserPath | None = None
    """A folder that `save_to_disk` wrote, a `.parquet` file or a folder of such files, or a folder of images. Given
    with `--data`; alternatively `hub` is set."""

    hub: str | None = None
    """Name on the hub, such as `uoft-cs/cifar10`. The set must be in the library's cache unless `download` is set. Not
    hashed."""

    subset: str | None = None
    """Name of the configuration, for a set that has several. Not hashed."""

    download: bool = False
    """Download missing files of `hub`."""

    image_column: str | None = None
    """Name of the column of images; needed if there are several. Not hashed."""

    label_column: str | None = None
    """Name of the column of labels; needed if there are several. Not hashed."""

    train_split: str = "train"
    """Name of the training split. Not hashed."""

    val_split: str | None = None
    """Name of the validation split; by default the first of `validation`, `valid`, `val`, `dev` and `test` that there
    is. Not hashed."""

    val_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Share of the training images that is held out as validation images if the set has no other split; stratified by
    class where there are labels. Source: ours. Not hashed; the fingerprint of the images covers the split."""

    val_seed: int = Field(default=0, ge=0)
    """Seed of that split; the same for all training seeds, so that runs are compared on the same images. Not hashed."""

    groups: str | None = None
    """Column of the group of an image, such as the patient or scene: the images of a group are not divided between
    training and validation. Not hashed."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.path is not None and self.hub is not None:
            raise ValueError(f"path {self.path} and hub {self.hub!r} are two data sets; give one of them")
        return self

    @property
    def dataset_name(self) -> str:
        return super().dataset_name if self.hub is None else f"{self.source}-{self.hub.rpartition('/')[2]}"


BASES["data"] = DataSection

IMPLEMENTATIONS: dict[type[DataSection], str] = {
    SyntheticData: "cnnjepa.data.resident:open_synthetic",
    FolderData: "cnnjepa.data.folder:open_folder",
    TorchvisionData: "cnnjepa.data.torchvision_sets:open_torchvision",
    HDF5Data: "cnnjepa.data.hdf5:open_hdf5",
    HuggingFaceData: "cnnjepa.data.huggingface:open_huggingface",
}
"""Config class of every built-in source, and the function that opens both of its splits, imported when a run needs
it."""

if TYPE_CHECKING:
    DataConfig = DataSection
else:
    DataConfig = extensible("data", IMPLEMENTATIONS)
