"""The masked context encoder: the stock network, computed densely, with every layer's output set to zero where masked.

The known implementations compute in this way (arXiv 2301.03580, 2408.07514). It is the reference for the packed encoder
and shares no code with it.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle
from torchvision.models.convnext import LayerNorm2d
from torchvision.ops import Permute


class MaskedEncoder(nn.Module):
    """Runs a stock backbone with mask hooks that exist during one forward pass only. Otherwise the network is
    unchanged.

    `backbone` maps images [B, K, H, W] to features [B, C, H/s, W/s].
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.network = backbone

    def forward(self, images_BCHW: Tensor, context_BGG: Tensor) -> Tensor:
        """Return features [B, C, rows, columns] of the context (boolean [B, rows, columns], True = visible); zero at
        masked cells."""
        context_BGG = context_BGG.to(images_BCHW.device)
        with _hooked(self.network.modules(), context_BGG):
            features: Tensor = self.network(_zeroed(images_BCHW, context_BGG))
        return features

    def stage_maps(self, images_BCHW: Tensor, context_BGG: Tensor, norms: Sequence[nn.Module]) -> list[Tensor]:
        """Return the maps [B, C, rows·p, columns·p] of the last len(norms) stages of a backbone with stages, the
        deepest (p = 1) first. Each map has passed its norm, which sees visible positions only. Masked cells are
        zero."""
        context_BGG = context_BGG.to(images_BCHW.device)
        with _hooked([*self.network.modules(), *norms], context_BGG):
            maps = self.network.stage_maps(_zeroed(images_BCHW, context_BGG))  # type: ignore[operator]
            return [norm(found) for norm, found in zip(norms, reversed(maps), strict=False)]

    def dense_copy(self) -> nn.Module:
        """Return a plain copy of the network, which shares nothing with it."""
        return copy.deepcopy(self.network)


@contextmanager
def _hooked(layers: Iterable[nn.Module], context_BGG: Tensor) -> Iterator[None]:
    def zero(layer: nn.Module, args: Any, output: Tensor) -> Tensor:
        return _zeroed(output, context_BGG)

    handles: list[RemovableHandle] = []
    for layer in layers:
        if isinstance(layer, _BatchNorm):
            handles += _norm_over_visible(layer, context_BGG)
        elif not any(layer.children()) and not _works_on_channels_last(layer):
            handles.append(layer.register_forward_hook(zero))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _works_on_channels_last(layer: nn.Module) -> bool:
    """Return whether a layer inside a ConvNeXt block works on [B, H, W, C]. Such layers process one position at a time,
    so they need no mask. The permutation at the block's end restores a map, which is masked."""
    if isinstance(layer, Permute):
        return layer.dims == [0, 2, 3, 1]
    plain = isinstance(layer, nn.LayerNorm) and not isinstance(layer, LayerNorm2d)
    return plain or isinstance(layer, nn.Linear | nn.GELU)


def _norm_over_visible(norm: _BatchNorm, context_BGG: Tensor) -> list[RemovableHandle]:
    """Install hooks that give a stock batch norm the visible positions as rows, and write its rows back into the
    map."""
    masks: list[Tensor] = []

    def to_rows(layer: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        (map_BCHW,) = args
        masks.append(_at(context_BGG, map_BCHW))
        return (map_BCHW.permute(0, 2, 3, 1)[masks[-1]][:, :, None, None],)

    def to_map(layer: nn.Module, args: Any, rows: Tensor) -> Tensor:
        visible = masks.pop()
        map_BHWC = rows.new_zeros(*visible.shape, rows.shape[1])
        return map_BHWC.masked_scatter(visible[..., None], rows.flatten(1)).permute(0, 3, 1, 2)

    return [norm.register_forward_pre_hook(to_rows), norm.register_forward_hook(to_map)]


def _at(context_BGG: Tensor, map_BCHW: Tensor) -> Tensor:
    """Return the mask at the resolution of a map, boolean [B, H, W]."""
    down, across = (map_BCHW.shape[axis] // context_BGG.shape[axis - 1] for axis in (2, 3))
    return context_BGG.repeat_interleave(down, 1).repeat_interleave(across, 2)


def _zeroed(map_BCHW: Tensor, context_BGG: Tensor) -> Tensor:
    visible = _at(context_BGG, map_BCHW)[:, None]
    return torch.where(visible, map_BCHW, map_BCHW.new_zeros(()))
