"""Folders that the library `transformers` loads without this program: ResNets with torchvision's stem, and ConvNeXts.

Names of parameters and fields are those of transformers' `resnet` and `convnext` models.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnnjepa.encoders import ConvNeXtBackbone, ResNetBackbone
from cnnjepa.export.exported_encoder import ExportedEncoder
from cnnjepa.optional import needed
from cnnjepa.schemas import ConfigError

# Pattern of our name → transformers' name. Stages count from 0 there.
_RESNET = (
    (r"conv1\.(.*)", r"embedder.embedder.convolution.\1"),
    (r"bn1\.(.*)", r"embedder.embedder.normalization.\1"),
    (r"layer(\d)\.(\d+)\.conv(\d)\.(.*)", r"encoder.stages.<\1>.layers.\2.layer.<\3>.convolution.\4"),
    (r"layer(\d)\.(\d+)\.bn(\d)\.(.*)", r"encoder.stages.<\1>.layers.\2.layer.<\3>.normalization.\4"),
    (r"layer(\d)\.(\d+)\.downsample\.0\.(.*)", r"encoder.stages.<\1>.layers.\2.shortcut.convolution.\3"),
    (r"layer(\d)\.(\d+)\.downsample\.1\.(.*)", r"encoder.stages.<\1>.layers.\2.shortcut.normalization.\3"),
)
_CONVNEXT = (
    (r"features\.0\.0\.(.*)", r"embeddings.patch_embeddings.\1"),
    (r"features\.0\.1\.(.*)", r"embeddings.layernorm.\1"),
    (r"features\.([246])\.(\d)\.(.*)", r"encoder.stages.(\1).downsampling_layer.\2.\3"),
    (r"features\.([1357])\.(\d+)\.layer_scale", r"encoder.stages.(\1).layers.\2.layer_scale_parameter"),
    (r"features\.([1357])\.(\d+)\.block\.0\.(.*)", r"encoder.stages.(\1).layers.\2.dwconv.\3"),
    (r"features\.([1357])\.(\d+)\.block\.2\.(.*)", r"encoder.stages.(\1).layers.\2.layernorm.\3"),
    (r"features\.([1357])\.(\d+)\.block\.3\.(.*)", r"encoder.stages.(\1).layers.\2.pwconv1.\3"),
    (r"features\.([1357])\.(\d+)\.block\.5\.(.*)", r"encoder.stages.(\1).layers.\2.pwconv2.\3"),
)


def to_transformers(exported: ExportedEncoder, folder: Path) -> tuple[Tensor, str]:
    """Write `config.json`, `model.safetensors` and, for square RGB images of 8 bits, `preprocessor_config.json`.
    Returns the pooled features of the loaded model, and the code that loads it."""
    settings, state = transformers_form(exported)
    safetensors = needed("safetensors.torch", "export", "--to transformers")
    transformers = needed("transformers", "export", "--to transformers")
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    tensors = {name: value.contiguous() for name, value in state.items()}
    safetensors.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    if preparation := _preparation(exported):
        text = json.dumps(preparation, indent=2) + "\n"
        (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")
    model = transformers.AutoModel.from_pretrained(str(folder)).eval()
    loading = """
from transformers import AutoModel  # or AutoBackbone, for the maps of the stages

model = AutoModel.from_pretrained(".").eval()  # or "YOU/NAME"
features = model(images).last_hidden_state.mean((2, 3))
"""
    with torch.inference_mode():
        return model(exported.images()).last_hidden_state.mean((2, 3)), loading


def transformers_form(exported: ExportedEncoder) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return transformers' config of the encoder, and its state dict. Raises ConfigError for a network that
    transformers does not have."""
    network, encoder = exported.network, exported.config.encoder
    shared = {
        "torch_dtype": "float32", "num_channels": exported.config.data.channels,
        "hidden_sizes": list(getattr(network, "stage_dims", ())),
    }  # fmt: skip
    if isinstance(network, ConvNeXtBackbone):
        depths = [len(stage) for stage in network.features[1::2]]
        last = network.feature_dim
        norm = {"layernorm.weight": torch.ones(last), "layernorm.bias": torch.zeros(last)}  # of its pooled output
        state = renamed(network.state_dict(), _CONVNEXT)
        state = {name: value.flatten() if "layer_scale" in name else value for name, value in state.items()}
        return {
            **shared, "model_type": "convnext", "architectures": ["ConvNextModel"], "depths": depths, "patch_size": 4,
            "num_stages": 4, "hidden_act": "gelu", "layer_norm_eps": 1e-6, "drop_path_rate": 0.0,
        }, {**state, **norm}  # fmt: skip
    known = isinstance(network, ResNetBackbone) and network.conv1.kernel_size == (7, 7)  # torchvision's stem
    if not known or re.fullmatch(r"resnet\d+", encoder.arch) is None:
        raise ConfigError(
            f"--to transformers: {encoder.short_name} is no ResNet with torchvision's stem and no ConvNeXt, so "
            "transformers has no such network; for this encoder --to must be one of safetensors, onnx, torch-export "
            "and huggingface"
        )
    assert isinstance(network, ResNetBackbone)
    stages = [getattr(network, f"layer{number + 1}") for number in range(len(network.stage_dims))]
    return {
        **shared, "model_type": "resnet", "architectures": ["ResNetModel"], "depths": [len(s) for s in stages],
        "embedding_size": network.conv1.out_channels, "hidden_act": "relu",
        "layer_type": "bottleneck" if hasattr(stages[0][0], "conv3") else "basic",
    }, renamed(network.state_dict(), _RESNET)  # fmt: skip


def renamed(state: Mapping[str, Tensor], patterns: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    """Return the tensors under the names that the patterns give. In a new name, `<n>` becomes n - 1, and `(n)` the
    stage of torchvision's n-th part of a ConvNeXt."""
    found = {}
    for name, value in state.items():
        new = next(re.sub(pattern, to, name) for pattern, to in patterns if re.fullmatch(pattern, name))
        new = re.sub(r"<(\d+)>", lambda match: str(int(match[1]) - 1), new)
        found[re.sub(r"\((\d)\)", lambda match: str(int(match[1]) // 2), new)] = value
    return found


def _preparation(exported: ExportedEncoder) -> dict[str, Any] | None:
    """Return the settings of transformers' image processor; None if it cannot prepare such images."""
    data, prepared = exported.config.data, exported.preprocessing()
    if data.channels != 3 or data.dtype != "uint8" or prepared["clipped"]:
        return None
    _, height, width = prepared["input_size"]
    if height != width:  # it would resize the shorter side of every image
        return None
    return {
        "image_processor_type": "BitImageProcessor", "do_resize": True, "size": {"shortest_edge": prepared["resize"]},
        "resample": 2,  # bilinear
        "do_center_crop": True, "crop_size": {"height": height, "width": width}, "do_rescale": True,
        "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": prepared["mean"], "image_std": prepared["std"],
        "do_convert_rgb": True,
    }  # fmt: skip
