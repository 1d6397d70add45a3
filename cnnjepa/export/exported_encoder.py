"""Content of an export: an encoder together with the facts that its users need."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cnnjepa.encoders import Backbone
from cnnjepa.errors import RunError
from cnnjepa.pretrained import load_encoder
from cnnjepa.schemas import ConfigError, PretrainConfig, TrialResult, read_config
from cnnjepa.schemas.extent import height_width
from cnnjepa.training.run_folder import RunFolder

# Relative to the largest feature. Another library's convolutions sum in another order.
TOLERANCE = 1e-5


class PooledEncoder(nn.Module):
    """Encoder with features averaged over positions, as the probes see them: images [B, K, H, W] of K channels → [B,
    C]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return the pooled features; see the class."""
        features: Tensor = self.network(images).mean((2, 3))
        return features


@dataclass
class ExportedEncoder:
    """One encoder of one run."""

    run: Path
    config: PretrainConfig
    result: TrialResult | None
    """Result of the run; None if it has not ended."""
    which: Literal["target", "context"]
    network: Backbone
    """The network in eval mode, on the CPU."""

    @classmethod
    def of(cls, run: Path, which: Literal["target", "context"] | None, checkpoint: str) -> "ExportedEncoder":
        """Load an encoder from a run. Raises ConfigError if there is no such run, checkpoint or encoder."""
        network = load_encoder(run, which, checkpoint)
        config = read_config(run / "config.yaml")
        wanted = which or config.probed_encoder
        found = RunFolder(run).results() if checkpoint == "last.pt" else []
        # The run's own result describes the training; a result for another encoder describes only that encoder's
        # figures.
        result = next((one for one in found if one.probed_encoder == wanted), next(iter(found), None))
        return cls(run, config, result, wanted, network)

    def refuse_unless_stock(self, to: str) -> None:
        """Raise ConfigError for a residual network that no other library has."""
        if not self.config.encoder.in_other_libraries:
            raise ConfigError(
                f"--to {to}: {self.config.encoder.short_name} is no ResNet of that library at full width; for this "
                "encoder --to must be one of safetensors, onnx, torch-export and huggingface"
            )

    def images(self) -> Tensor:
        """Return four random, normalised images of the training size, for comparing features."""
        return torch.randn(4, *self.config.image_shape, generator=torch.Generator().manual_seed(0))

    @torch.inference_mode()
    def features(self) -> Tensor:
        """Return the pooled features [4, C] of `images`."""
        return PooledEncoder(self.network)(self.images())

    def compare(self, theirs: Tensor, where: str) -> float:
        """Return the largest relative difference of the features of `images`; see `relative_error`."""
        return relative_error(self.features(), theirs, where)

    def preprocessing(self) -> dict[str, Any]:
        """Return how images are converted to inputs. An image is resized until it covers the input size, enlarged so
        that its shorter side is `resize`; its centre is the input."""
        data, resize = self.config.data, self.config.probe.resize
        return {
            "input_size": list(self.config.image_shape),
            "resize": resize or min(height_width(data.image_size)),
            "dtype": data.dtype,
            "range": list(data.bounds),
            "clipped": data.range != "dtype",
            "mean": list(data.mean),
            "std": list(data.std),
            "interpolation": "bilinear",
        }


def relative_error(ours: Tensor, theirs: Tensor, where: str) -> float:
    """Return the largest relative difference of two outputs of the encoder. Raises RunError if it exceeds the
    tolerance. `where` names the program that gave `theirs`."""
    error = float((ours - theirs).abs().max() / ours.abs().max())
    if not error <= TOLERANCE:
        raise RunError(f"the exported encoder gives different features in {where}: relative error {error:.1e}")
    return error
