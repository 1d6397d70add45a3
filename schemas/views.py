"""Views: colour augmentation of crops, drawn independently for every image and view.

Crop and flip are settings of `data.augmentation`; only local views have their own size and scale. The operations are
applied in this order: jitter (its four parts in a random order per image), grey, blur and solarisation.
"""

from typing import NamedTuple, Self

from pydantic import Field, model_validator

from cnnjepa.schemas.augmentation import AugmentationSection
from cnnjepa.schemas.base import Section
from cnnjepa.schemas.bounds import Bounds
from cnnjepa.schemas.extent import Extent


class ViewConfig(Section):
    """Colours of one view; everything is off by default."""

    jitter: float = Field(default=0.0, ge=0, le=1)
    """Probability of colour jitter. Source: 0.8 in SimCLR, BYOL and VICReg."""

    brightness: float = Field(default=0.0, ge=0)
    """Range of the brightness factor, 1 ± this (not below 0). Source: torchvision's meaning."""

    contrast: float = Field(default=0.0, ge=0)
    """Range of the contrast factor, 1 ± this (not below 0). Source: torchvision's meaning."""

    saturation: float = Field(default=0.0, ge=0)
    """Range of the saturation factor, 1 ± this (not below 0). Source: torchvision's meaning."""

    hue: float = Field(default=0.0, ge=0, le=0.5)
    """Largest rotation of the hue in either direction, as a fraction of the circle. Source: torchvision's meaning."""

    grey: float = Field(default=0.0, ge=0, le=1)
    """Probability that the view becomes grey. Source: 0.2 in SimCLR, BYOL and VICReg."""

    blur: float = Field(default=0.0, ge=0, le=1)
    """Probability of a Gaussian blur; its kernel spans a tenth of the view's shorter side. Source: SimCLR, appendix
    A."""

    blur_sigma: Bounds = (0.1, 2.0)
    """Smallest and largest standard deviation of the blur in pixels. Source: SimCLR, 0.1 to 2."""

    solarise: float = Field(default=0.0, ge=0, le=1)
    """Probability of solarisation: pixels of at least half the largest value are inverted. Source: BYOL and VICReg."""

    solarise_first: bool = False
    """Apply solarisation before the blur (true, VICReg) or after it (false, BYOL)."""

    @model_validator(mode="after")
    def _jitter_does_something(self) -> Self:
        if self.jitter and not any((self.brightness, self.contrast, self.saturation, self.hue)):
            raise ValueError(
                f"jitter {self.jitter:g} without brightness, contrast, saturation or hue changes nothing; set one of "
                "them, or jitter=0"
            )
        return self

    @property
    def plain(self) -> bool:
        """Return whether colours are unchanged."""
        return not any((self.jitter, self.grey, self.blur, self.solarise))


class SimCLRView(ViewConfig):
    """Both views of SimCLR. Source: docs/sources.md#simclr-views (arXiv 2002.05709, appendix A)."""

    jitter: float = Field(default=0.8, ge=0, le=1)
    """Probability of colour jitter."""

    brightness: float = Field(default=0.8, ge=0)
    """Range of the brightness factor, 1 ± this."""

    contrast: float = Field(default=0.8, ge=0)
    """Range of the contrast factor, 1 ± this."""

    saturation: float = Field(default=0.8, ge=0)
    """Range of the saturation factor, 1 ± this."""

    hue: float = Field(default=0.2, ge=0, le=0.5)
    """Largest rotation of the hue, as a fraction of the circle."""

    grey: float = Field(default=0.2, ge=0, le=1)
    """Probability that the view becomes grey."""

    blur: float = Field(default=0.5, ge=0, le=1)
    """Probability of a Gaussian blur."""


class BYOLFirstView(SimCLRView):
    """BYOL's first view: weaker jitter, always blurred. Source: docs/sources.md#byol-first-view."""

    brightness: float = Field(default=0.4, ge=0)
    """Range of the brightness factor, 1 ± this."""

    contrast: float = Field(default=0.4, ge=0)
    """Range of the contrast factor, 1 ± this."""

    saturation: float = Field(default=0.2, ge=0)
    """Range of the saturation factor, 1 ± this."""

    hue: float = Field(default=0.1, ge=0, le=0.5)
    """Largest rotation of the hue, as a fraction of the circle."""

    blur: float = Field(default=1.0, ge=0, le=1)
    """Probability of a Gaussian blur."""


class BYOLSecondView(BYOLFirstView):
    """BYOL's second view: rarely blurred, sometimes solarised. Source: docs/sources.md#byol-second-view."""

    blur: float = Field(default=0.1, ge=0, le=1)
    """Probability of a Gaussian blur."""

    solarise: float = Field(default=0.2, ge=0, le=1)
    """Probability of solarisation."""


class VICRegView(BYOLFirstView):
    """Both views of VICReg. Source: docs/sources.md#vicreg-views."""

    blur: float = Field(default=0.5, ge=0, le=1)
    """Probability of a Gaussian blur."""

    solarise: float = Field(default=0.1, ge=0, le=1)
    """Probability of solarisation."""

    solarise_first: bool = True
    """Apply solarisation before the blur."""


class LeJEPAView(BYOLFirstView):
    """All views of LeJEPA: BYOL's jitter, rarely solarised. Source: docs/sources.md#lejepa-colours."""

    blur: float = Field(default=0.5, ge=0, le=1)
    """Probability of a Gaussian blur."""

    solarise: float = Field(default=0.2, ge=0, le=1)
    """Probability of solarisation."""


PLAIN = ViewConfig()


class View(NamedTuple):
    """One view of every image, with all settings resolved."""

    colours: ViewConfig
    size: Extent
    """Side in pixels, or (height, width)."""
    augmentation: AugmentationSection
    """Crop, flip and further changes of the pixels."""
