"""Augmentation of training images: crop, flip, and further changes of the pixels."""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Union

from pydantic import Discriminator, Field, SerializeAsAny, WrapValidator

from cnnjepa.schemas.bounds import Bounds, share_of
from cnnjepa.schemas.extension import BASES, ExtensibleSection, Kind, validated_as


class AugmentationSection(ExtensibleSection):
    """The config of an augmentation: the crop and the flip, which every augmentation begins with. The colours of a view
    are settings of the method."""

    EXTENDS: ClassVar[Kind] = "augmentation"

    CHANGES_PIXELS: ClassVar[bool] = True
    """True if the augmentation changes the pixels of a view after crop, flip and colours."""

    name: str
    """The augmentation that this section configures."""

    crop_scale: Annotated[Bounds, share_of("the image's area")] = (0.2, 1.0)
    """Smallest and largest share of the image's area in a crop. Source: docs/sources.md#crop."""

    crop_ratio: Bounds = (3 / 4, 4 / 3)
    """Smallest and largest aspect (width/height) of the region of the image that is cropped. The region is then resized
    to `data.image_size`, whatever that aspect is, as in torchvision; for a rectangle of aspect a, 3/4·a to 4/3·a
    stretches by at most 4/3. Source: torchvision's default."""

    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a horizontal flip. Source: docs/sources.md#flip."""

    vertical_flip: float = Field(default=0.0, ge=0, le=1)
    """Probability of a flip upside down, for images without a preferred direction (tiles, slides). Source: ours; off in
    the paper."""

    quarter_turns: float = Field(default=0.0, ge=0, le=1)
    """Probability of a rotation by 90, 180 or 270 degrees, each equally likely. Source: ours; off in the paper."""

    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    """Antialiased resampling of crops. Source: docs/sources.md#crop."""


class AugmentationConfig(AugmentationSection):
    """Random resized crop and horizontal flip; CNN-JEPA uses no other augmentation (paper III-F)."""

    CHANGES_PIXELS: ClassVar[bool] = False

    name: Literal["crop"] = "crop"
    """The augmentation that this section configures."""


class RandomErasingConfig(AugmentationSection):
    """Crop and flip, then random erasing: in some of the views, a rectangle gets one value (arXiv 1708.04896)."""

    OWN_FIELDS: ClassVar[tuple[str, ...]] = ("erase_probability", "erase_area", "erase_aspect", "erase_fill")

    name: Literal["erase"] = "erase"
    """The augmentation that this section configures."""

    erase_probability: float = Field(default=0.5, ge=0, le=1)
    """Probability that a view has a rectangle. Source: arXiv 1708.04896, section 4 (0.5)."""

    erase_area: Annotated[Bounds, share_of("the view's area")] = (0.02, 0.4)
    """Smallest and largest share of the view's area in the rectangle. Source: arXiv 1708.04896, section 4."""

    erase_aspect: Bounds = (0.3, 10 / 3)
    """Smallest and largest height/width of the rectangle. Source: arXiv 1708.04896, section 4 (0.3 and its inverse)."""

    erase_fill: float = Field(default=0.5, ge=0, le=1)
    """Value of the pixels in the rectangle; 0 is black, 1 is white. Source: ours, grey."""


BASES["augmentation"] = AugmentationSection

IMPLEMENTATIONS: dict[type[AugmentationSection], str] = {
    RandomErasingConfig: "cnnjepa.data.erasing:RandomErasing",
}
"""Config class of every built-in augmentation that changes pixels after crop, flip and colours, and the class that does
so, imported when a run needs it."""


def _validated(value: Any, ours: Any) -> Any:
    """Return the section. Records of earlier versions have no `name`; they mean crop and flip."""
    if isinstance(value, dict) and "name" not in value:
        value = {**value, "name": "crop"}
    return validated_as("augmentation", value, ours)


if TYPE_CHECKING:
    AnyAugmentation = AugmentationSection
else:
    AnyAugmentation = Annotated[
        Union[(AugmentationConfig, *IMPLEMENTATIONS)],
        Discriminator("name"),
        WrapValidator(_validated),
        SerializeAsAny(),
    ]
