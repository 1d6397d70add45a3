"""Corrupted images for the task `robust`: noise, blur, JPEG, contrast, pixelation and occlusion at five severities.

The strengths are those of ImageNet-C at a side of 224 pixels and those of CIFAR-10-C at 32 pixels (arXiv 1903.12261 and
the code published with it). Between the two sides they are interpolated geometrically; below 32 and above 224 pixels
they are held. The side is the shorter one of the crop. Both papers lack the occlusion, whose strengths are ours.

| corruption | strength | at 32 px | at 224 px |
|---|---|---|---|
| noise | standard deviation in shares of `data.range` | 0.04 0.06 0.08 0.09 0.10 | 0.08 0.12 0.18 0.26 0.38 |
| blur | sigma in pixels; a share of the side beyond the two sides | 0.4 0.6 0.7 0.8 1.0 | 1 2 3 4 6 |
| jpeg | quality | 80 65 58 50 40 | 25 18 15 10 7 |
| contrast | factor on the difference from the mean | 0.75 0.5 0.4 0.3 0.15 | 0.4 0.3 0.2 0.1 0.05 |
| pixelate | cells per side, in shares of the side | 0.95 0.9 0.85 0.75 0.65 | 0.6 0.5 0.4 0.3 0.25 |
| occlusion | covered share of the area | 0.1 0.2 0.3 0.4 0.5 | 0.1 0.2 0.3 0.4 0.5 |
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from cnnjepa.randomness import generator, key, uniforms
from cnnjepa.schemas import DataConfig
from cnnjepa.schemas.extent import height_width
from cnnjepa.schemas.pixels import LARGEST

SEVERITIES = 5

_SMALL, _LARGE = 32, 224
"""Sides for which strengths are published."""

_STRENGTHS = {
    "noise": ((0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)),
    "blur": (tuple(s / _SMALL for s in (0.4, 0.6, 0.7, 0.8, 1.0)), tuple(s / _LARGE for s in (1, 2, 3, 4, 6))),
    "jpeg": ((80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
    "contrast": ((0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
    "pixelate": ((0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25)),
    "occlusion": ((0.1, 0.2, 0.3, 0.4, 0.5), (0.1, 0.2, 0.3, 0.4, 0.5)),
}
"""Strengths by severity at the two sides; those of blur in shares of the side."""


def strengths(corruption: str, side: int) -> tuple[float, ...]:
    """Return the strengths of the five severities at a side in pixels, in the units of the table above."""
    place = min(1.0, max(0.0, math.log(side / _SMALL) / math.log(_LARGE / _SMALL)))
    found = [small ** (1 - place) * large**place for small, large in zip(*_STRENGTHS[corruption], strict=True)]
    if corruption == "jpeg":
        return tuple(float(round(quality)) for quality in found)
    return tuple(share * side for share in found) if corruption == "blur" else tuple(found)


class Corruptions:
    """The corruptions of the images of a set. Every corrupted image is a function of the image, its index and the seed:
    it does not depend on the other images of a batch. All severities of an image share the noise and the place of the
    occlusion.

    Pixels may be of any type and number of channels. `jpeg` exists for uint8 images with one or three channels only.
    """

    def __init__(self, section: DataConfig, seed: int) -> None:
        kind = section.pixels
        self._seed, self._largest = seed, None if section.dtype == "float32" else LARGEST[section.dtype]
        self._low, high = section.bounds
        self._scale = high - self._low
        self._fill = torch.tensor(section.mean).view(-1, 1, 1)
        without_jpeg = section.dtype != "uint8" or kind.channels not in (1, 3)
        self.names = tuple(name for name in _STRENGTHS if not (without_jpeg and name == "jpeg"))
        """The corruptions that these images allow."""
        self.notes = []
        """Corruptions that are left out, with the reason."""
        if without_jpeg:
            images = f"{section.dtype} images with {kind.channels} channel{'s' if kind.channels != 1 else ''}"
            self.notes.append(f"left out: jpeg, which cannot store {images}")
        self._strengths = {name: strengths(name, min(height_width(section.image_size))) for name in self.names}

    @property
    def strengths(self) -> dict[str, tuple[float, ...]]:
        """The strengths of every corruption, by severity."""
        return self._strengths

    def variants(self, pixels: Tensor, places: Tensor) -> Iterator[tuple[str, int, Tensor]]:
        """Yield (corruption, severity from 1, corrupted pixels of the same shape and type) for all corruptions and
        severities of pixels [B, K, H, W] on the CPU. `places`, int64 [B], are the indices of the images in their
        set."""
        values = (pixels.float() - self._low) / self._scale
        noise = torch.stack(
            [
                torch.randn(values.shape[1:], generator=generator(self._seed, "noise", index))
                for index in places.tolist()
            ]
        )
        corner = uniforms(key(self._seed, "occlusion"), places, 2)
        for name, by_severity in self._strengths.items():
            for severity, strength in enumerate(by_severity, start=1):
                if name == "jpeg":
                    yield name, severity, transforms.jpeg(pixels, int(strength))
                    continue
                if name == "noise":
                    made = noisy(values, noise, strength)
                elif name == "blur":
                    made = blurred(values, strength)
                elif name == "contrast":
                    made = values.mean((2, 3), keepdim=True).lerp(values, strength)
                elif name == "pixelate":
                    made = pixelated(values, strength)
                else:
                    made = occluded(values, corner, strength, self._fill)
                yield name, severity, self._pixels(made, pixels.dtype)

    def _pixels(self, values: Tensor, kind: torch.dtype) -> Tensor:
        found = values * self._scale + self._low
        return found if self._largest is None else found.round_().clamp_(0, self._largest).to(kind)


def noisy(values: Tensor, noise: Tensor, deviation: float) -> Tensor:
    """Return float32 [B, K, H, W] with added noise of this standard deviation, clipped to 0..1, or to the range of the
    image where that is wider."""
    low, high = values.amin((1, 2, 3), keepdim=True).clamp(max=0), values.amax((1, 2, 3), keepdim=True).clamp(min=1)
    return (values + deviation * noise).clamp(low, high)


def blurred(values: Tensor, sigma: float) -> Tensor:
    """Return float32 [B, K, H, W] after a Gaussian blur whose kernel reaches to three sigma, at most to the border."""
    reach = min(math.ceil(3 * sigma), min(values.shape[2:]) - 1)
    blur: Tensor = transforms.gaussian_blur(values, [2 * reach + 1] * 2, [sigma, sigma])
    return blur


def pixelated(values: Tensor, share: float) -> Tensor:
    """Return float32 [B, K, H, W], resized down to this share of the sides with antialiasing, and up again with nearest
    neighbours."""
    height, width = values.shape[2:]
    # 32 * 0.75 may be 23.999…
    small = transforms.resize(values, [max(1, int(share * side + 1e-6)) for side in (height, width)], antialias=True)
    large: Tensor = transforms.resize(small, [height, width], InterpolationMode.NEAREST_EXACT)
    return large


def occluded(values: Tensor, corner: Tensor, share: float, fill: Tensor) -> Tensor:
    """Return float32 [B, K, H, W] with one rectangle of the image's shape and this share of its area, filled with the
    colour `fill` [K, 1, 1]. `corner` [B, 2], 0 to 1, is its place: 0 is at the top and left, 1 at the bottom and
    right."""
    height, width = values.shape[2:]
    tall, wide = (round(math.sqrt(share) * side) for side in (height, width))
    tops = (corner[:, 0] * (height - tall + 1)).long().clamp(max=height - tall)
    lefts = (corner[:, 1] * (width - wide + 1)).long().clamp(max=width - wide)
    places = zip(values, tops.tolist(), lefts.tolist(), strict=True)
    return torch.stack([transforms.erase(image, top, left, tall, wide, fill) for image, top, left in places])
