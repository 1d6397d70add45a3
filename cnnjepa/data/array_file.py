"""Pixels in NumPy's format: an array [H, W], [H, W, channels] or [channels, H, W] in a `.npy` file."""

import io

import numpy as np
from torch import Tensor

from cnnjepa.data.pixels import UnfitError, fitted
from cnnjepa.schemas.pixels import PixelKind


def decode_array(encoded: bytes, kind: PixelKind) -> Tensor:
    """Decode a `.npy` file. The axis whose length is `data.channels` holds the channels; it must be the first or the
    last one, and not both."""
    array = np.load(io.BytesIO(encoded), allow_pickle=False)
    if array.ndim == 2:
        return fitted(array, kind)
    if array.ndim != 3 or not array.size:
        raise ValueError(f"its array has the shape {list(array.shape)}; must be [H, W], [H, W, C] or [C, H, W]")
    first, last = array.shape[0] == kind.channels, array.shape[2] == kind.channels
    if first and last:
        raise ValueError(
            f"both the first and the last axis of its shape {list(array.shape)} have data.channels {kind.channels} "
            "entries, so its channels are unknown; store it with another height or width"
        )
    if not first and not last:
        channels = min(array.shape[0], array.shape[2])
        raise UnfitError(
            f"no outer axis of its shape {list(array.shape)} has data.channels {kind.channels} entries; "
            f"data.channels={channels} keeps them",
            kind._replace(channels=channels),
        )
    return fitted(np.moveaxis(array, 0, 2) if first else array, kind)
