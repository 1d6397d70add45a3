"""Masks: the cells of the feature grid that are context and those that are targets, for a whole batch at once."""

from cnnjepa.masks.cells import Masks
from cnnjepa.masks.sampling import sample_masks

__all__ = ["Masks", "sample_masks"]
