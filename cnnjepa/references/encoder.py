"""An encoder that is ready for use, with what its users need to know."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cnnjepa.references.preprocessing import Preprocessing
from cnnjepa.schemas import ConfigError, PretrainConfig
from cnnjepa.warm_start.libraries import first_line
from cnnjepa.warm_start.matching import fingerprint


@dataclass(frozen=True)
class ReferencedEncoder:
    """An encoder that a user named."""

    reference: str
    """As the user wrote it."""
    label: str
    """Short name for tables."""
    network: nn.Module
    """Network in eval mode, on the CPU: normalised images [B, K, H, W] → last feature map [B, C, h, w]."""
    feature_dim: int
    """C, the number of channels of the feature map."""
    map_size: tuple[int, int]
    """h and w, the cells of the feature map of an image of the encoder's size."""
    preprocessing: Preprocessing
    """How images become inputs."""
    fingerprint: str
    """SHA-256 over weights, preprocessing and the kind of network. A run and its exports have the same."""
    folder: Path | None = None
    """Run folder or exported folder; None for other encoders."""
    config: PretrainConfig | None = None
    """Config of the run; None for other encoders."""
    untrained: bool = False
    """True for the random weights of `random:PRESET` and `timm:NAME`, whose batch-norm statistics are those with which
    torch begins."""


@dataclass(frozen=True)
class Opened:
    """A network and the facts about it, before it is tried."""

    network: nn.Module
    preprocessing: Preprocessing
    label: str
    kind: dict[str, Any]
    """Facts about the computation that the weights do not hold, as JSON values."""
    folder: Path | None = None
    config: PretrainConfig | None = None
    untrained: bool = False


def tried(opened: Opened, reference: str) -> ReferencedEncoder:
    """Return the encoder after it has computed the map of one image. Raises ConfigError if that fails, or if the output
    is not a map [B, C, h, w]."""
    network = opened.network.eval()
    height, width = opened.preprocessing.image_size
    shape = [1, opened.preprocessing.channels, height, width]
    try:
        with torch.inference_mode():
            features = network(torch.zeros(shape))
    except ConfigError:
        raise
    except Exception as error:  # the user's code, or an image size that the network refuses
        raise ConfigError(
            f"encoder {reference}: it fails on an image {shape} ({type(error).__name__}: {first_line(error)}); give "
            "another --image-size or --channels, or correct the network"
        ) from error
    if not isinstance(features, Tensor) or features.dim() != 4:
        found = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ConfigError(
            f"encoder {reference}: an image {shape} gives {found}, and an encoder gives a feature map [1, C, h, w]; "
            "leave out pooling and classifier, or make a map of tokens, in a class of your own (package.module:Class)"
        )
    return ReferencedEncoder(
        reference, opened.label, network, int(features.shape[1]), (int(features.shape[2]), int(features.shape[3])),
        opened.preprocessing, _fingerprint(opened), opened.folder, opened.config, opened.untrained,
    )  # fmt: skip


def stage_maps(encoder: ReferencedEncoder, images: Tensor) -> list[Tensor]:
    """Return the feature maps of the network's stages for normalised images [B, K, H, W], finest first; the last one is
    the network's output. With torchvision's stem the strides are 4, 8, 16 and 32. Networks whose stages are unknown,
    and transformers, have one map."""
    stages = getattr(encoder.network, "stage_maps", None)
    return stages(images) if stages is not None else [encoder.network(images)]


def _fingerprint(opened: Opened) -> str:
    weights = {k: v for k, v in opened.network.state_dict().items() if not k.endswith("num_batches_tracked")}
    facts = {"kind": opened.kind, "preprocessing": asdict(opened.preprocessing), "weights": fingerprint(weights)}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
