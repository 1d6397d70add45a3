"""Export formats, one function per format: it writes into a folder, loads the result back as a user would, and compares
the features."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cnnjepa.encoders import ResNetBackbone
from cnnjepa.export.card import data_licence, model_card, without_places
from cnnjepa.export.exported_encoder import ExportedEncoder, PooledEncoder
from cnnjepa.export.programs import to_onnx, to_torch_export
from cnnjepa.export.transformers_layout import to_transformers
from cnnjepa.optional import needed
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.extent import height_width
from cnnjepa.storage.whole_folder import whole_folder


def export_run(
    run: Path,
    to: str,
    out: Path | None = None,
    which: Literal["target", "context"] | None = None,
    checkpoint: str = "last.pt",
    licence: str | None = None,
) -> tuple[Path, float]:
    """Export the run's encoder in the format `to` into `out` (RUN/export/TO by default). `which` selects the encoder;
    the default is the probed one. Returns the folder, and the largest relative difference between our features and
    those of the loaded export. The folder appears when the export is complete and its features have been compared. A
    failed export leaves nothing behind.

    Raises ConfigError for an encoder that this format cannot hold, a folder that contains other files, a missing
    package, or images of unknown licence; raises RunError if the features differ by more than 1e-5.
    """
    if to not in FORMATS:
        raise ConfigError(f"--to {to}: must be one of {', '.join(FORMATS)}")
    exported = ExportedEncoder.of(run, which, checkpoint)
    rights = data_licence(exported, licence)
    folder = out or run / "export" / to
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / "README.md").is_file())):
        raise ConfigError(f"--out {folder} contains other files; give an empty or new folder")
    with whole_folder(folder, last="README.md") as aside:
        features, loading = FORMATS[to](exported, aside)
        error = exported.compare(features, to)
        settings = {
            "encoder": without_places(exported.config),
            "preprocessing": exported.preprocessing(),
        }
        (aside / "encoder.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        (aside / "README.md").write_text(model_card(exported, rights, loading), encoding="utf-8")
    return folder, error


def _to_torchvision(exported: ExportedEncoder, folder: Path) -> tuple[Tensor, str]:
    import torchvision

    exported.refuse_unless_stock("torchvision")
    if not isinstance(exported.network, ResNetBackbone):
        raise ConfigError(
            "--to torchvision: its vision transformers have a class token, this encoder has none; use timm"
        )
    arch = exported.config.encoder.arch
    torch.save(exported.network.state_dict(), folder / "encoder.pt")
    stock = getattr(torchvision.models, arch)()
    stock.fc = nn.Identity()
    channels, stem = exported.config.data.channels, ""
    if channels != 3:
        stock.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        stem = f"model.conv1 = torch.nn.Conv2d({channels}, 64, 7, stride=2, padding=3, bias=False)\n"
    stock.load_state_dict(torch.load(folder / "encoder.pt", weights_only=True))
    loading = f"""
import torch, torchvision

model = torchvision.models.{arch}()
model.fc = torch.nn.Identity()
{stem}model.load_state_dict(torch.load("encoder.pt", weights_only=True))
features = model.eval()(images)
"""
    with torch.inference_mode():
        return stock.eval()(exported.images()), loading


def _timm_form(exported: ExportedEncoder) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Return timm's name of the network, its arguments, and the state dict."""
    encoder, state = exported.config.encoder, dict(exported.network.state_dict())
    channels = exported.config.data.channels
    others: dict[str, Any] = {"in_chans": channels} if channels != 3 else {}
    if isinstance(exported.network, ResNetBackbone):
        return str(encoder.arch), {"num_classes": 0, **others}, state
    from cnnjepa.encoders.vit import ViTBackbone, positions

    assert isinstance(exported.network, ViTBackbone)
    codes = positions(exported.config.grid, exported.network.feature_dim, next(iter(state.values())))
    arguments = {
        "num_classes": 0, "img_size": exported.config.data.image_size, "patch_size": encoder.total_stride,
        "depth": len(exported.network.blocks),
        "class_token": False, "global_pool": "avg", "fc_norm": False, **others,
    }  # fmt: skip
    return f"{encoder.arch}_patch16_224", arguments, {**state, "pos_embed": codes[None]}


def _to_timm(exported: ExportedEncoder, folder: Path) -> tuple[Tensor, str]:
    exported.refuse_unless_stock("timm")
    timm = needed("timm", "export", "--to timm")
    name, arguments, state = _timm_form(exported)
    torch.save(state, folder / "encoder.pt")
    model = timm.create_model(name, **arguments)
    model.load_state_dict(torch.load(folder / "encoder.pt", weights_only=True))
    words = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    loading = f"""
import timm, torch

model = timm.create_model("{name}", {words})
model.load_state_dict(torch.load("encoder.pt", weights_only=True))
features = model.eval()(images)
"""
    with torch.inference_mode():
        return model.eval()(exported.images()), loading


def _to_safetensors(exported: ExportedEncoder, folder: Path) -> tuple[Tensor, str]:
    safetensors = needed("safetensors.torch", "export", "--to safetensors")
    state = {name: value.contiguous() for name, value in exported.network.state_dict().items()}
    safetensors.save_file(state, folder / "encoder.safetensors", {"format": "pt"})
    again = _rebuilt(exported)
    again.load_state_dict(safetensors.load_file(folder / "encoder.safetensors"))
    channels = exported.config.data.channels
    more = f", channels={channels}" if channels != 3 else ""
    loading = f"""
import json
from cnnjepa.encoders import build_backbone
from cnnjepa.schemas import AnyEncoderConfig
from pydantic import TypeAdapter
from safetensors.torch import load_file

config = TypeAdapter(AnyEncoderConfig).validate_python(json.load(open("encoder.json"))["encoder"])
encoder = build_backbone(config, seed=0{more})
encoder.load_state_dict(load_file("encoder.safetensors"))
features = encoder.eval()(images).mean((2, 3))
"""
    with torch.inference_mode():
        return PooledEncoder(again.eval())(exported.images()), loading


def _rebuilt(exported: ExportedEncoder) -> nn.Module:
    from cnnjepa.encoders import build_backbone

    return build_backbone(exported.config.encoder, exported.config.runtime.seed + 1, exported.config.data.channels)


def _to_huggingface(exported: ExportedEncoder, folder: Path) -> tuple[Tensor, str]:
    """Write timm's layout if timm has the network, so that `timm.create_model("hf-hub:NAME")` loads it."""
    safetensors = needed("safetensors.torch", "export", "--to huggingface")
    if not exported.config.encoder.in_other_libraries:
        return _to_safetensors(exported, folder)
    timm = needed("timm", "export", "--to huggingface")
    name, arguments, state = _timm_form(exported)
    safetensors.save_file({k: v.contiguous() for k, v in state.items()}, folder / "model.safetensors", {"format": "pt"})
    preparation = exported.preprocessing()
    arguments.pop("num_classes")
    settings: dict[str, Any] = {
        "architecture": name, "num_classes": 0, "num_features": exported.network.feature_dim,
        "model_args": arguments,
        "pretrained_cfg": {
            "tag": exported.config.method.name, "custom_load": False, "input_size": preparation["input_size"],
            "interpolation": preparation["interpolation"], "mean": preparation["mean"], "std": preparation["std"],
            "crop_pct": min(preparation["input_size"][1:]) / preparation["resize"], "num_classes": 0,
            "pool_size": list(height_width(exported.config.grid)),
            "classifier": "head" if "patch" in name else "fc",
        },
    }  # fmt: skip
    if exported.config.data.channels == 3:  # timm would adapt the named layer from 3 channels to the model's
        settings["pretrained_cfg"]["first_conv"] = "patch_embed.proj" if "patch" in name else "conv1"
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    loading = """
import timm

model = timm.create_model("hf-hub:YOU/NAME", pretrained=True)  # or "local-dir:FOLDER"
features = model.eval()(images)
"""
    with torch.inference_mode():
        return model.eval()(exported.images()), loading


FORMATS: dict[str, Callable[[ExportedEncoder, Path], tuple[Tensor, str]]] = {
    "torchvision": _to_torchvision,
    "timm": _to_timm,
    "safetensors": _to_safetensors,
    "onnx": to_onnx,
    "torch-export": to_torch_export,
    "huggingface": _to_huggingface,
    "transformers": to_transformers,
}
"""Format → function that writes an encoder into a folder. It returns the features of `ExportedEncoder.images` from the
loaded export, and the Python code that loads it."""
