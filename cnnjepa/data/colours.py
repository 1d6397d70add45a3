"""Colour augmentation of each view, as a function of (seed, epoch, image, view).

The parameters are drawn in the same way for both paths. Loader processes apply them image by image with torchvision
(`colour_one`); resident data are changed as a batch on their device (`cnnjepa/data/recolour.py`). The distributions are
those of torchvision's ColorJitter, RandomGrayscale, GaussianBlur and RandomSolarize.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from cnnjepa.randomness import key, uniforms
from cnnjepa.schemas import ViewConfig

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


class Colours(NamedTuple):
    """Colour parameters of every image of a batch; all tensors are [B, …], on the CPU."""

    jitter: Tensor
    """Boolean: whether colour jitter (the four factors) is applied."""
    order: Tensor
    """int64 [B, 4], the order in which brightness (0), contrast (1), saturation (2) and hue (3) are changed."""
    factors: Tensor
    """float64 [B, 4]: three factors and the rotation of the hue (a fraction of the circle)."""
    grey: Tensor
    """Boolean: whether the image becomes grey."""
    blur: Tensor
    """Boolean: whether the image is blurred."""
    sigma: Tensor
    """float64 [B], standard deviation of the blur in pixels."""
    solarise: Tensor
    """Boolean: whether the image is solarised."""


def draw_colours(view: ViewConfig, index_B: Tensor, seed: int, epoch: int, number: int) -> Colours:
    """Draw the colour parameters of view `number` of the images `index_B` (int64 [B], on the CPU) in `epoch`."""
    draws = uniforms(key(seed, "colours", epoch, number), index_B, 13)
    spread = torch.tensor([view.brightness, view.contrast, view.saturation], dtype=torch.float64)
    low = (1 - spread).clamp(min=0)
    factors = low + draws[:, 5:8] * (1 + spread - low)
    hue = (2 * draws[:, 8:9] - 1) * view.hue
    least, most = view.blur_sigma
    return Colours(
        jitter=draws[:, 0] < view.jitter,
        order=draws[:, 1:5].argsort(dim=1, stable=True),
        factors=torch.cat([factors, hue], 1),
        grey=draws[:, 9] < view.grey,
        blur=draws[:, 10] < view.blur,
        sigma=least + draws[:, 11] * (most - least),
        solarise=draws[:, 12] < view.solarise,
    )


def kernel_radius(size: int) -> int:
    """Return the radius, in pixels, of the blur kernel for a view of `size` pixels. The kernel spans a tenth of the
    view (11 at 224 px); the radius is at least one pixel."""
    return max(1, round(size / 20))


def colour_one(image: Tensor, colours: Colours, place: int, view: ViewConfig) -> Tensor:
    """Apply the parameters at index `place` of the batch to one image, uint8 [3, H, W] → same shape, with torchvision's
    functions."""
    if colours.jitter[place]:
        changes = (
            transforms.adjust_brightness,
            transforms.adjust_contrast,
            transforms.adjust_saturation,
            transforms.adjust_hue,
        )
        asked = (view.brightness, view.contrast, view.saturation, view.hue)
        for which in colours.order[place].tolist():
            if asked[which]:
                image = changes[which](image, float(colours.factors[place, which]))
    if colours.grey[place]:
        image = transforms.rgb_to_grayscale(image, 3)
    if colours.solarise[place] and view.solarise_first:
        image = transforms.solarize(image, 128)
    if colours.blur[place]:
        side = 2 * kernel_radius(min(image.shape[1:])) + 1
        image = transforms.gaussian_blur(image, [side, side], [float(colours.sigma[place])])
    if colours.solarise[place] and not view.solarise_first:
        image = transforms.solarize(image, 128)
    return image
