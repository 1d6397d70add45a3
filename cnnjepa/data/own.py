"""User-defined sources of images."""

import torch
from torch import Tensor

from cnnjepa.data.pixels import torch_type
from cnnjepa.data.source import ImageSource, Splits
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.data_section import DataSection
from cnnjepa.schemas.extension import Extension
from cnnjepa.schemas.pixels import PixelKind


def open_own(found: Extension, config: DataSection) -> Splits:
    """Open both splits of a user-defined source. The class `found` is called with (config, "train") and with (config,
    "val"); each call returns an ImageSource. Raises ConfigError if it does not."""
    splits: dict[str, ImageSource] = {split: found.implementation(config, split) for split in ("train", "val")}
    for split, source in splits.items():
        if wrong := _wrong(source, config.pixels):
            raise ConfigError(f"data {found.named}, split {split}: {wrong}")
    return Splits(splits)


def _wrong(source: ImageSource, kind: PixelKind) -> str | None:
    """Describe how a source of images of `kind` fails to be an ImageSource, or return None. Its first image is
    loaded."""
    needed = ("labels", "class_names", "load", "name", "fingerprint")
    if missing := [name for name in needed if not hasattr(source, name)]:
        return f"it has no {', '.join(missing)}; an ImageSource has {', '.join(needed)}"
    labels = source.labels
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.dim() != 1:
        return "labels must be an int64 tensor [N]"
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < len(source.class_names):
        return f"labels must lie in 0 to {len(source.class_names) - 1}, the places in class_names"
    if not isinstance(mark := source.fingerprint(), str) or not mark:
        return "fingerprint() must be a text that changes with the images"
    image = source.load(0) if labels.numel() else None
    if image is not None and (image.dtype != torch_type(kind) or image.dim() != 3 or image.shape[0] != kind.channels):
        return (
            f"load(0) must be {kind.dtype} [{kind.channels}, H, W] (data.dtype, data.channels); it is {image.dtype} "
            f"{list(image.shape)}"
        )
    return None
