"""Tensor names of other libraries, converted to those of our networks, which are torchvision's.

timm and transformers build the same ResNets and ConvNeXts under other names. Tensors of a ConvNeXt also differ in
shape: there the layer scale is a vector, and 1x1 convolutions may take the place of linear layers.
"""

import re
from collections.abc import Mapping

from torch import Tensor

_Rules = tuple[tuple[str, str], ...]

# (pattern of a whole name, new name). `<n*2+1>` in a new name is that number; see `_number`.
_TRANSFORMERS_RESNET: _Rules = (
    (r"embedder\.embedder\.convolution\.(\w+)", r"conv1.\1"),
    (r"embedder\.embedder\.normalization\.(\w+)", r"bn1.\1"),
    (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.(\d+)\.convolution\.(\w+)", r"layer<\1+1>.\2.conv<\3+1>.\4"),
    (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.(\d+)\.normalization\.(\w+)", r"layer<\1+1>.\2.bn<\3+1>.\4"),
    (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.shortcut\.convolution\.(\w+)", r"layer<\1+1>.\2.downsample.0.\3"),
    (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.shortcut\.normalization\.(\w+)", r"layer<\1+1>.\2.downsample.1.\3"),
)
_TRANSFORMERS_CONVNEXT: _Rules = (
    (r"embeddings\.patch_embeddings\.(\w+)", r"features.0.0.\1"),
    (r"embeddings\.layernorm\.(\w+)", r"features.0.1.\1"),
    (r"encoder\.stages\.(\d+)\.downsampling_layer\.(\d+)\.(\w+)", r"features.<\1*2>.\2.\3"),
    (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.layer_scale_parameter", r"features.<\1*2+1>.\2.layer_scale"),
    (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.dwconv\.(\w+)", r"features.<\1*2+1>.\2.block.0.\3"),
    (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.layernorm\.(\w+)", r"features.<\1*2+1>.\2.block.2.\3"),
    (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.pwconv1\.(\w+)", r"features.<\1*2+1>.\2.block.3.\3"),
    (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.pwconv2\.(\w+)", r"features.<\1*2+1>.\2.block.5.\3"),
    (r"layernorm\.(\w+)", r"classifier.0.\1"),
)
_TIMM_CONVNEXT: _Rules = (
    (r"stem\.(\d+)\.(\w+)", r"features.0.\1.\2"),
    (r"stages\.(\d+)\.downsample\.(\d+)\.(\w+)", r"features.<\1*2>.\2.\3"),
    (r"stages\.(\d+)\.blocks\.(\d+)\.gamma", r"features.<\1*2+1>.\2.layer_scale"),
    (r"stages\.(\d+)\.blocks\.(\d+)\.conv_dw\.(\w+)", r"features.<\1*2+1>.\2.block.0.\3"),
    (r"stages\.(\d+)\.blocks\.(\d+)\.norm\.(\w+)", r"features.<\1*2+1>.\2.block.2.\3"),
    (r"stages\.(\d+)\.blocks\.(\d+)\.mlp\.fc1\.(\w+)", r"features.<\1*2+1>.\2.block.3.\3"),
    (r"stages\.(\d+)\.blocks\.(\d+)\.mlp\.fc2\.(\w+)", r"features.<\1*2+1>.\2.block.5.\3"),
    (r"head\.norm\.(\w+)", r"classifier.0.\1"),
    (r"head\.fc\.(\w+)", r"classifier.2.\1"),
)
# A name that only this library's network has, and the rules for all of its names.
_LIBRARIES: tuple[tuple[str, _Rules], ...] = (
    ("embedder.embedder.convolution.weight", _TRANSFORMERS_RESNET),
    ("embeddings.patch_embeddings.weight", _TRANSFORMERS_CONVNEXT),
    ("stages.0.blocks.0.conv_dw.weight", _TIMM_CONVNEXT),
)


def as_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of timm's or transformers' ResNet or ConvNeXt under torchvision's names. Names before which
    all names have the same prefix lose it. All other tensors are returned unchanged."""
    for sign, rules in _LIBRARIES:
        prefix = next((name.removesuffix(sign) for name in state if name == sign or name.endswith(f".{sign}")), None)
        if prefix is not None:
            return dict(_renamed(name.removeprefix(prefix), value, rules) for name, value in state.items())
    return dict(state)


def _renamed(name: str, value: Tensor, rules: _Rules) -> tuple[str, Tensor]:
    for pattern, template in rules:
        if found := re.fullmatch(pattern, name):
            new = re.sub(r"<(\d+)(?:\*(\d))?(?:\+(\d))?>", _number, found.expand(template))
            if new.endswith(".layer_scale"):
                return new, value.flatten()[:, None, None]
            return new, value.flatten(1) if re.search(r"block\.[35]\.weight$", new) else value
    return name, value


def _number(found: re.Match[str]) -> str:
    """Return the value of `<n*factor+offset>`."""
    number, factor, offset = found.groups()
    return str(int(number) * int(factor or 1) + int(offset or 0))
