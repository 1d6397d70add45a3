"""The base class of masking strategies, built-in and user-defined."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from cnnjepa.masks.cells import Masks
from cnnjepa.schemas.extent import Extent
from cnnjepa.schemas.masking import MaskingSection


class MaskingStrategy(ABC):
    """Draws the masks of a step. A user's strategy is named by `masking.strategy: package.module:Class`. Its nested
    `Config`, derived from MaskingSection, holds its fields and must define `mean_context`."""

    def __init__(self, config: MaskingSection) -> None:
        self.config = config

    @abstractmethod
    def draw(self, grid: Extent, indices_B: Tensor, seed: int, step: int) -> Masks:
        """Return the masks [B, rows, columns] of the samples at the global batch indices `indices_B` (int64 [B]), on
        its device. `grid` is the number of cells per side of a square grid, or (rows, columns) of another one;
        `cnnjepa.extend.height_width` gives both sides. The masks must be a function of the arguments alone, so that a
        resumed run and several processes draw the same masks. Every sample must have a context cell and a target cell,
        and no cell may be both."""


def broken_promise(masks: Masks, shape: tuple[int, ...]) -> str | None:
    """Describe how drawn masks violate the contract of `MaskingStrategy.draw`, or return None. `shape` is [B, rows,
    columns]."""
    if not isinstance(masks, tuple) or len(masks) != 2 or not all(isinstance(mask, Tensor) for mask in masks):
        return f"draw must give Masks(context, target), not {type(masks).__name__}"
    for name, mask in zip(Masks._fields, masks, strict=True):
        if mask.dtype != torch.bool or tuple(mask.shape) != shape:
            return f"{name} must be boolean {list(shape)}; it is {mask.dtype} {list(mask.shape)}"
        if not mask.flatten(1).any(1).all():
            return f"a sample has no {name} cell"
    return "a cell is both context and target" if (masks[0] & masks[1]).any() else None
