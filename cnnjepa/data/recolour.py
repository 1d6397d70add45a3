"""Colour augmentation of a whole batch on its device, with separate parameters for every image.

Libraries that augment batches on the device (kornia, for example) draw their parameters from a generator's state. Here
every draw is a function of (seed, epoch, image, view), and both paths must have the same meaning. The operations are
torchvision's definitions on float pixels in [0, 255], without its rounding to whole values between steps.

The selection of images for each operation is known on the CPU, so that the code never waits for the device.
"""

import torch
from torch import Tensor

from cnnjepa.data.colours import BRIGHTNESS, CONTRAST, HUE, SATURATION, Colours, kernel_radius
from cnnjepa.schemas import DataConfig, ViewConfig

_LUMA = (0.2989, 0.587, 0.114)  # torchvision's weights of red, green and blue


def recolour(pixels_BCHW: Tensor, colours: Colours, view: ViewConfig) -> Tensor:
    """Change the colours of float pixels [B, 3, H, W] in [0, 255]; same shape. `colours` are on the CPU. See the
    module's docstring."""
    if view.plain:
        return pixels_BCHW
    pixels = pixels_BCHW.clone()
    _jitter(pixels, colours, view)
    _change(pixels, colours.grey, _grey)
    if view.solarise_first:
        _change(pixels, colours.solarise, _solarised)
    rows = _rows(colours.blur, pixels)
    if rows.numel():
        sigma = _to(colours.sigma[colours.blur], pixels)
        pixels[rows] = blurred(pixels[rows], sigma, kernel_radius(min(pixels.shape[2:])))
    if not view.solarise_first:
        _change(pixels, colours.solarise, _solarised)
    return pixels.clamp_(0, 255)  # weighted sums have rounding errors


def recolour_values(pixels_BCHW: Tensor, colours: Colours, view: ViewConfig, config: DataConfig) -> Tensor:
    """Change the colours of float pixels [B, K, H, W] whose values are those of `data.dtype`; same shape and range.
    Pixels of other types than uint8 are changed on the scale on which `data.range` is 0 to 255, and clipped to it."""
    if config.dtype == "uint8":
        return recolour(pixels_BCHW, colours, view)
    low, high = config.bounds
    scale = 255 / (high - low)
    return recolour((pixels_BCHW - low) * scale, colours, view) / scale + low


def _to(values: Tensor, pixels: Tensor) -> Tensor:
    return values.to(pixels.dtype).to(pixels.device, non_blocking=True)


def _rows(chosen_B: Tensor, pixels: Tensor) -> Tensor:
    return chosen_B.nonzero()[:, 0].to(pixels.device, non_blocking=True)


def _change(pixels: Tensor, chosen_B: Tensor, change) -> None:  # type: ignore[no-untyped-def]
    rows = _rows(chosen_B, pixels)
    if rows.numel():
        pixels[rows] = change(pixels[rows])


def _jitter(pixels: Tensor, colours: Colours, view: ViewConfig) -> None:
    asked = (view.brightness, view.contrast, view.saturation, view.hue)
    for place in range(4):
        for which in (BRIGHTNESS, CONTRAST, SATURATION, HUE):
            chosen = colours.jitter & (colours.order[:, place] == which)
            rows = _rows(chosen, pixels)
            if asked[which] and rows.numel():
                amount = _to(colours.factors[chosen, which], pixels)[:, None, None, None]
                pixels[rows] = _JITTERS[which](pixels[rows], amount)


def _luma(pixels: Tensor) -> Tensor:
    red, green, blue = pixels.unbind(1)
    return (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue)[:, None]


def _blend(pixels: Tensor, other: Tensor, share: Tensor) -> Tensor:
    return (share * pixels + (1 - share) * other).clamp_(0, 255)


def _brighter(pixels: Tensor, factor: Tensor) -> Tensor:
    return (pixels * factor).clamp_(0, 255)


def _contrasted(pixels: Tensor, factor: Tensor) -> Tensor:
    return _blend(pixels, _luma(pixels).mean((2, 3), keepdim=True), factor)


def _saturated(pixels: Tensor, factor: Tensor) -> Tensor:
    return _blend(pixels, _luma(pixels), factor)


def _grey(pixels: Tensor) -> Tensor:
    return _luma(pixels).expand_as(pixels)


def _solarised(pixels: Tensor) -> Tensor:
    return torch.where(pixels >= 128, 255 - pixels, pixels)


def _hue_turned(pixels: Tensor, turn: Tensor) -> Tensor:
    """Rotate the hue in the hexagonal HSV model. The largest and smallest value of each pixel are unchanged."""
    most, brightest = pixels.max(1)
    span = most - pixels.amin(1)
    red, green, blue = pixels.unbind(1)
    safe = torch.where(span == 0, torch.ones_like(span), span)
    hue = torch.where(brightest == 0, (green - blue) / safe, (blue - red) / safe + 2)
    hue = torch.where(brightest == 2, (red - green) / safe + 4, hue)  # sixths of the circle
    hue = hue + 6 * turn[:, 0]
    # A channel falls from the largest to the smallest value between one and two sixths of the circle from its own hue.
    offset = torch.tensor([5.0, 3.0, 1.0], dtype=pixels.dtype, device=pixels.device)[:, None, None]
    sixth = (offset + hue[:, None]) % 6
    share = torch.minimum(sixth, 4 - sixth).clamp(0, 1)
    return most[:, None] - span[:, None] * share


_JITTERS = {BRIGHTNESS: _brighter, CONTRAST: _contrasted, SATURATION: _saturated, HUE: _hue_turned}


def blurred(pixels_BCHW: Tensor, sigma_B: Tensor, radius: int) -> Tensor:
    """Blur with a Gaussian of one standard deviation per image, with reflected edges, as two batched matrix
    products."""
    offset = torch.arange(-radius, radius + 1, device=pixels_BCHW.device)
    kernel = torch.exp(-0.5 * (offset / sigma_B[:, None]) ** 2)
    kernel_BT = (kernel / kernel.sum(1, keepdim=True)).to(pixels_BCHW.dtype)
    height, width = pixels_BCHW.shape[2:]
    down = _blur_weights(kernel_BT, offset, height)
    across = down if height == width else _blur_weights(kernel_BT, offset, width)
    return down[:, None] @ pixels_BCHW @ across[:, None].transpose(2, 3)


def _blur_weights(kernel_BT: Tensor, offset_T: Tensor, side: int) -> Tensor:
    """Return the matrix [B, side, side] that blurs along an axis of `side` pixels."""
    source = (torch.arange(side, device=offset_T.device)[:, None] + offset_T).abs()
    source = torch.where(source >= side, 2 * (side - 1) - source, source)
    weights = kernel_BT.new_zeros(kernel_BT.shape[0], side, side)
    weights.scatter_add_(2, source.expand(kernel_BT.shape[0], -1, -1), kernel_BT[:, None].expand(-1, side, -1))
    return weights
