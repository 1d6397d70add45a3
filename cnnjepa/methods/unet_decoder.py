"""SparK's decoder (arXiv 2301.03580, section 3.2), from feature maps of several scales to pixels. Widths and kernels
are those of the released code.

Shapes: B images, GG the grid's rows and columns of cells (their numbers may differ). Scale i counts from the deepest (i
= 0, the grid's sides); its maps have C_i channels and the grid's sides times 2^i, H and W, and the decoder has D / 2^i
channels there.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cnnjepa.methods.method import Pass
from cnnjepa.schemas.extent import Extent, height_width


class Densify(nn.Module):
    """Fills the hidden positions of a sparse map with a learned vector and projects it to the decoder's width."""

    def __init__(self, channels: int, width: int, kernel: int) -> None:
        super().__init__()
        self.token = nn.Parameter(nn.init.trunc_normal_(torch.empty(channels), std=0.02, a=-0.02, b=0.02))
        same = kernel == 1 and channels == width
        self.projection = nn.Identity() if same else nn.Conv2d(channels, width, kernel, padding=kernel // 2)

    def forward(self, map_BCHW: Tensor, context_BGG: Tensor) -> Tensor:
        """Convert a map [B, C_i, H, W] and the visible cells (boolean) to [B, D / 2^i, H, W]."""
        p = map_BCHW.shape[2] // context_BGG.shape[1]
        visible = context_BGG.repeat_interleave(p, 1).repeat_interleave(p, 2)[:, None]
        filled = torch.where(visible, map_BCHW, self.token.to(map_BCHW.dtype)[:, None, None])
        projected: Tensor = self.projection(filled)
        return projected


class UpBlock(nn.Sequential):
    """Upsampling block: [B, width, H, W] → [B, width / 2, 2·H, 2·W]."""

    def __init__(self, width: int) -> None:
        after = width // 2
        super().__init__(
            nn.ConvTranspose2d(width, width, 4, stride=2, padding=1),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU6(inplace=True),
            nn.Conv2d(width, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
        )


class UNetDecoder(nn.Module):
    """Decoder to which the map of each scale is added before the block that doubles its sides."""

    def __init__(self, channels: Sequence[int], width: int, doublings: int, image_channels: int = 3) -> None:
        """Build the decoder. `channels` are those of the maps, deepest first, at most `doublings` of them. `width` must
        be divisible by 2^doublings."""
        super().__init__()
        widths = [width // 2**scale for scale in range(doublings + 1)]
        self.blocks = nn.ModuleList(UpBlock(before) for before in widths[:-1])
        self.pixels = nn.Conv2d(widths[-1], image_channels, 1)
        for layer in self.modules():  # as in the released code, whose projections keep torch's initialisation
            if isinstance(layer, nn.ConvTranspose2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
            elif isinstance(layer, nn.Conv2d):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        self.scales = nn.ModuleList(
            Densify(count, width, 1 if scale == 0 else 3)
            for scale, (count, width) in enumerate(zip(channels, widths, strict=False))
        )
        self._shapes = [(count, 2**scale) for scale, count in enumerate(channels)]
        self._widths = widths

    def forward(self, maps: Sequence[Tensor], context_BGG: Tensor) -> Tensor:
        """Decode sparse maps, deepest first, and the visible cells (boolean) to pixels [B, K, H, W] of K image
        channels, at the images' size."""
        x: Tensor | None = None
        for number, block in enumerate(self.blocks):
            if number < len(self.scales):
                dense = self.scales[number](maps[number], context_BGG)
                x = dense if x is None else x + dense
            x = block(x)
        pixels: Tensor = self.pixels(x)
        return pixels

    def passes(self, grid: Extent) -> list[Pass]:
        """Return the parts of a step. All layers are dense and run on every image."""
        rows, columns = height_width(grid)
        parts = [
            Pass(scale.projection, (count, rows * factor, columns * factor), 1)  # type: ignore[arg-type]
            for scale, (count, factor) in zip(self.scales, self._shapes, strict=True)
        ]
        factors = [2**number for number in range(len(self._widths))]
        layers = [*self.blocks, self.pixels]
        parts += [
            Pass(layer, (width, rows * factor, columns * factor), 1)
            for layer, width, factor in zip(layers, self._widths, factors, strict=True)
        ]
        return parts
