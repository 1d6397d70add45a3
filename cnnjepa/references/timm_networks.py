"""Networks of timm without pooling and classifier."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from cnnjepa.randomness import key
from cnnjepa.references.encoder import Opened
from cnnjepa.references.preprocessing import PreprocessingOverrides, for_channels, resolved
from cnnjepa.references.request import EncoderRequest
from cnnjepa.references.strides import finest_first
from cnnjepa.schemas.extent import height_width
from cnnjepa.warm_start.libraries import pretrained_timm, timm_weights, timm_with


class TimmMaps(nn.Module):
    """A network of timm up to its last feature map: images [B, K, H, W] → [B, C, h, w]. The patch tokens of a
    transformer become a map, without class and register tokens."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return the last feature map; see the class."""
        features: Tensor = self.network.forward_features(images)  # type: ignore[operator]
        if isinstance(features, Tensor) and features.dim() == 3:
            return self._on_grid(features, images)
        return features.permute(0, 3, 1, 2) if getattr(self.network, "output_fmt", "NCHW") == "NHWC" else features

    def _on_grid(self, tokens: Tensor, images: Tensor) -> Tensor:
        """Return tokens [B, N, C] as a map; unchanged if they are on no grid of patches."""
        patches = getattr(self.network, "patch_embed", None)
        if patches is None or not hasattr(patches, "dynamic_feat_size"):
            return tokens
        grid = patches.dynamic_feat_size(tuple(images.shape[2:]))
        tokens = tokens[:, getattr(self.network, "num_prefix_tokens", 0) :]
        return tokens.transpose(1, 2).unflatten(2, grid) if tokens.shape[1] == grid[0] * grid[1] else tokens

    def stage_maps(self, images: Tensor) -> list[Tensor]:
        """Return the maps at the strides 4, 8, 16 and 32 that the network has; the last one is its output."""
        last = self(images)
        if not hasattr(self.network, "forward_intermediates"):
            return [last]
        maps = self.network.forward_intermediates(images, intermediates_only=True)  # type: ignore[operator]
        return finest_first([one for one in maps if one.dim() == 4], last, images)


def open_timm(request: EncoderRequest, overrides: PreprocessingOverrides) -> Opened:
    """Open `timm:NAME` (random weights, seeded) or `timm:NAME:pretrained`. Raises ConfigError for an unknown name, and
    for weights that cannot be read."""
    named, name, pretrained = f"encoder {request.reference}", request.name, request.detail == "pretrained"
    timm = timm_with(name, named)
    described = timm_weights(name, named) if pretrained else timm.get_pretrained_cfg(name)
    known: dict[str, Any] = _of_description(described) if described else {}
    preprocessing = resolved(for_channels(known, overrides), overrides, named)
    arguments: dict[str, Any] = {"num_classes": 0}
    if known and preprocessing.channels != known["channels"]:
        arguments["in_chans"] = preprocessing.channels
    if known and described.fixed_input_size and preprocessing.image_size != height_width(known["image_size"]):
        arguments["img_size"] = preprocessing.image_size
    if pretrained:
        network = pretrained_timm(name, named, **arguments)
        label = f"timm:{described.architecture}.{described.tag}" if described.tag else f"timm:{name}:pretrained"
    else:
        network, label = _untrained(name, arguments), f"timm:{name} (untrained)"
    facts = {"timm": name.partition(".")[0]}
    return Opened(TimmMaps(network), preprocessing, label, facts, untrained=not pretrained)


def _of_description(described: Any) -> dict[str, Any]:
    """Return the fields of `Preprocessing` from timm's description of a network."""
    channels, *size = described.input_size
    return {
        "image_size": size, "channels": channels, "mean": described.mean, "std": described.std,
        "resize": math.floor(min(size) / described.crop_pct),
    }  # fmt: skip


def _untrained(name: str, arguments: dict[str, Any]) -> nn.Module:
    timm = timm_with(name, name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(0, "encoder_init") >> 1)
        network: nn.Module = timm.create_model(name, pretrained=False, **arguments)
    return network
