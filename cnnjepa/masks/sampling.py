"""Sampling of context and target masks.

Quantities that determine the amount of work (the block size, the choice in a mixed batch) are functions of (seed, step)
alone. Positions are functions of (seed, step, global batch index). Neither the number of processes nor accumulation
therefore changes any mask.
"""

from torch import Tensor

from cnnjepa.errors import RunError
from cnnjepa.implementation import implementation_of
from cnnjepa.masks.cells import Masks
from cnnjepa.masks.strategy import MaskingStrategy, broken_promise
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.extension import extension_of
from cnnjepa.schemas.extent import Extent, height_width
from cnnjepa.schemas.masking import IMPLEMENTATIONS, MaskingSection


def sample_masks(masking: MaskingSection, grid: Extent, indices_B: Tensor, seed: int, step: int) -> Masks:
    """Draw masks for the samples at the global batch indices `indices_B` (int64 [B], on the target device) of step
    `step`. `grid` is the number of cells per side, or (rows, columns).

    Source: docs/sources.md#mixed-masking, docs/sources.md#block-sizes. The schemas document the strategies. Raises
    ConfigError for a user's class that is not a MaskingStrategy, and RunError for masks of such a class that violate
    the contract of `MaskingStrategy.draw`.
    """
    strategy = implementation_of(masking, IMPLEMENTATIONS)
    if not issubclass(strategy, MaskingStrategy):
        raise ConfigError(f"masking {masking.strategy}: the class must derive from cnnjepa.extend.MaskingStrategy")
    masks: Masks = strategy(masking).draw(grid, indices_B, seed, step)
    # Masks of the built-in strategies are tested. Checking them here would make every step wait for the device.
    if extension_of(masking) and (wrong := broken_promise(masks, (indices_B.numel(), *height_width(grid)))):
        raise RunError(f"masking {masking.strategy}, step {step}: {wrong}")
    return Masks(*masks)
