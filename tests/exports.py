"""Loading of an exported encoder as its model card says, and timm's weights where the hub stores them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor


def shown_loading(folder: Path) -> str:
    """The card's Python."""
    return (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]


def features_by_card(folder: Path, to: str, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """The features of `images` by the card's Python, run in the folder of the export."""
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {"images": images.numpy() if to == "onnx" else images}
    with torch.no_grad():
        exec(shown_loading(folder).replace("hf-hub:YOU/NAME", f"local-dir:{folder}"), names)
    return torch.as_tensor(names["features"])


class Hub:
    """The hub's cache in a folder, without network: empty until weights of timm's `resnet18.a1_in1k` are stored."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        constants = pytest.importorskip("huggingface_hub.constants")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(root))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        self.folder = root / "models--timm--resnet18.a1_in1k"

    def stored(self) -> Any:
        """Store the weights of a network, and return it."""
        timm, safetensors = pytest.importorskip("timm"), pytest.importorskip("safetensors.torch")
        model = timm.create_model("resnet18")
        snapshot = self.folder / "snapshots" / "0123"
        snapshot.mkdir(parents=True)
        (self.folder / "refs").mkdir()
        (self.folder / "refs" / "main").write_text("0123", encoding="utf-8")
        safetensors.save_file(model.state_dict(), snapshot / "model.safetensors")
        return model
