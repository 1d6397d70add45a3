"""Export as programs that need no code of a network: ONNX, and torch.export.

Both give the pooled features and the feature map. A convolutional network takes images of any size; a transformer takes
those of its own size.
"""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cnnjepa.export.exported_encoder import ExportedEncoder, relative_error
from cnnjepa.optional import needed


class FeaturesAndMap(nn.Module):
    """Encoder with both outputs: images [B, K, H, W] → features [B, C] and their map [B, C, h, w]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the map's mean over positions, and the map; see the class."""
        maps = self.network(images)
        return maps.mean((2, 3)), maps


def to_onnx(exported: ExportedEncoder, folder: Path) -> tuple[Tensor, str]:
    """Write `encoder.onnx` with the outputs `features` and `map`. Returns the features from ONNX Runtime, and the code
    that loads the file."""
    for module in ("onnx", "onnxscript"):
        needed(module, "export", "--to onnx")
    runtime = needed("onnxruntime", "export", "--to onnx")
    path = folder / "encoder.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own warnings, about versions of its operators
        torch.onnx.export(
            FeaturesAndMap(exported.network).eval(),
            (exported.images(),),
            path,
            input_names=["images"],
            output_names=["features", "map"],
            dynamic_shapes={"images": _free_sizes(exported)},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        features, maps = session.run(["features", "map"], {"images": images.numpy()})
        return torch.from_numpy(features), torch.from_numpy(maps)

    loading = f"""
import onnxruntime

session = onnxruntime.InferenceSession("encoder.onnx")
features, maps = session.run(["features", "map"], {{"images": images}})  # float32 {_shape(exported)}
"""
    return _compared(exported, run, "ONNX Runtime"), loading


def to_torch_export(exported: ExportedEncoder, folder: Path) -> tuple[Tensor, str]:
    """Write `encoder.pt2`, a program of torch.export. Returns the features of the loaded program, and the code that
    loads it."""
    path = folder / "encoder.pt2"
    network = FeaturesAndMap(exported.network).eval()
    program = torch.export.export(network, (exported.images(),), dynamic_shapes={"images": _free_sizes(exported)})
    torch.export.save(program, path)
    loaded: Any = torch.export.load(path).module()
    loading = f"""
import torch

program = torch.export.load("encoder.pt2").module()
features, maps = program(images)  # float32 {_shape(exported)}
"""
    return _compared(exported, loaded, "torch.export"), loading


def any_size(exported: ExportedEncoder) -> bool:
    """Return whether the program takes images of any size. A transformer's position codes are for one size, and
    a network of the user may compute with sizes in any way."""
    return exported.config.encoder.KIND == "convolutional"


def _free_sizes(exported: ExportedEncoder) -> dict[int, Any]:
    """Return the free sizes of the input, by axis."""
    sizes: dict[int, Any] = {0: torch.export.Dim("batch")}
    # Without a range of their own: torch cannot prove that every size of a range is divided as a ConvNeXt divides it.
    return sizes | ({2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC} if any_size(exported) else {})


def _shape(exported: ExportedEncoder) -> str:
    channels, height, width = exported.config.image_shape
    return f"[batch, {channels}, height, width]" if any_size(exported) else f"[batch, {channels}, {height}, {width}]"


@torch.inference_mode()
def _compared(exported: ExportedEncoder, program: Any, where: str) -> Tensor:
    """Return the program's features of `exported.images`. The map is compared too, and that of images of another size
    where the program takes them. Raises RunError if one differs."""
    images = exported.images()
    features, maps = program(images)
    relative_error(exported.network(images), maps, where)
    if any_size(exported):
        stride = exported.config.encoder.total_stride
        larger = nn.functional.pad(images[:1], (0, stride, 0, 2 * stride))
        relative_error(exported.network(larger), program(larger)[1], f"{where} at another size")
    return features
