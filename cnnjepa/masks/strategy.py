"""User-defined masking strategies."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from cnnjepa.errors import RunError
from cnnjepa.masks.cells import Masks
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.extension import Extension
from cnnjepa.schemas.masking import MaskingSection


class MaskingStrategy(ABC):
    """Draws the masks of a step. In the config it is named by `masking.strategy: package.module:Class`. A nested
    `Config`, derived from MaskingSection, holds its fields and must define `mean_context`."""

    def __init__(self, config: MaskingSection) -> None:
        self.config = config

    @abstractmethod
    def draw(self, grid: int, slots_B: Tensor, seed: int, step: int) -> Masks:
        """Return the masks [B, grid, grid] of the samples at the global batch indices `slots_B` (int64 [B]), on its
        device. They must be a function of the arguments alone, so that a resumed run and several processes draw the
        same masks. Every sample must have a context cell and a target cell, and no cell may be both."""


def draw_own(found: Extension, config: MaskingSection, grid: int, slots_B: Tensor, seed: int, step: int) -> Masks:
    """Draw masks with a user-defined strategy. Raises ConfigError for a class that is not a MaskingStrategy, and
    RunError for masks that violate the contract of `MaskingStrategy.draw`."""
    if not issubclass(found.implementation, MaskingStrategy):
        raise ConfigError(f"masking {found.named}: the class must derive from cnnjepa.extend.MaskingStrategy")
    masks = found.implementation(config).draw(grid, slots_B, seed, step)
    if wrong := _wrong(masks, (slots_B.numel(), grid, grid)):
        raise RunError(f"masking {found.named}, step {step}: {wrong}")
    return Masks(*masks)


def _wrong(masks: Masks, shape: tuple[int, ...]) -> str | None:
    """Describe the fault of drawn masks, or return None."""
    if not isinstance(masks, tuple) or len(masks) != 2 or not all(isinstance(mask, Tensor) for mask in masks):
        return f"draw must give Masks(context, target), not {type(masks).__name__}"
    for name, mask in zip(Masks._fields, masks, strict=True):
        if mask.dtype != torch.bool or tuple(mask.shape) != shape:
            return f"{name} must be boolean {list(shape)}; it is {mask.dtype} {list(mask.shape)}"
        if not mask.flatten(1).any(1).all():
            return f"a sample has no {name} cell"
    return "a cell is both context and target" if (masks[0] & masks[1]).any() else None
