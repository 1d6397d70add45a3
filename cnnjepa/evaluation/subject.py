"""A frozen encoder and a set of images, as tasks get them, with features that are extracted once for all tasks."""

import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from cnnjepa.data import DataSet
from cnnjepa.data.batches import Normalizer
from cnnjepa.data.source import ImageSource
from cnnjepa.errors import RunError
from cnnjepa.probes.features import Embed, Features, extract_from
from cnnjepa.probes.floors import calibrate_on
from cnnjepa.references.encoder import ReferencedEncoder
from cnnjepa.references.feature_maps import feature_maps
from cnnjepa.schemas import DataConfig

Split = Literal["train", "val"]


class Subject:
    """A frozen encoder and a set of images."""

    def __init__(
        self,
        encoder: ReferencedEncoder,
        data: DataSet,
        section: DataConfig,
        device: torch.device,
        scratch: Path,
        tick: Callable[[], None] = lambda: None,
        workers: int = 0,
        batch_size: int = 256,
    ) -> None:
        self.encoder, self.data, self.section, self.device = encoder, data, section, device
        self.scratch, self.workers, self.batch_size = scratch, workers, batch_size
        self._tick = tick
        self._pooled: dict[Split, Features] = {}
        self.extraction_seconds = 0.0
        """Wall time of all extractions so far."""
        self.skipped: list[str] = []
        """Unreadable images of the set, by name and reason."""

    @property
    def classes(self) -> int:
        """Number of classes; 0 without labels."""
        return self.data.classes

    @cached_property
    def network(self) -> nn.Module:
        """The encoder in eval mode on the device: normalised images [B, K, H, W] → features [B, C, h, w]. The
        batch-norm statistics of an untrained encoder are averages over training images of the set; those with which
        torch begins belong to no network."""
        network = self.encoder.network.to(self.device).eval()
        if not self.encoder.untrained:
            return network
        return calibrate_on(
            self.data.train, network, self.normalize, self.section, self.encoder.preprocessing.resize, self.device,
            workers=self.workers,
        )  # fmt: skip

    @cached_property
    def normalize(self) -> Normalizer:
        """Function that moves pixels to the device and normalises them."""
        return Normalizer(self.section, self.device, channels_last=False)

    def source(self, split: Split) -> ImageSource:
        """The images of a split."""
        return self.data.train if split == "train" else self.data.val

    def pooled(self, split: Split) -> Features:
        """Return the globally average-pooled features of a split, float32 [N, C]. They are extracted once. Raises
        RunError if a feature is not finite."""
        if split not in self._pooled:
            self._pooled[split] = self.extracted(self.source(split), self.embed)
            self.skipped += self._pooled[split].skipped
        return self._pooled[split]

    def extracted(self, source: ImageSource, embed: Embed) -> Features:
        """Return `embed` of all images of a source. Raises RunError if a value is not finite."""
        started = time.monotonic()
        features = extract_from(
            source, embed, self.section, self.encoder.preprocessing.resize, self.batch_size, self.workers, self.scratch,
            self._tick,
        )  # fmt: skip
        self.extraction_seconds += time.monotonic() - started
        if not features.finite():
            raise RunError(
                f"{self.encoder.label}: features of {self.data.name} are not finite; the encoder or its normalisation "
                "is broken"
            )
        return features

    @torch.inference_mode()
    def embed(self, pixels: Tensor) -> Tensor:
        """Return the pooled features of pixels [B, K, H, W], float32 [B, C] on the CPU."""
        return self.maps_of(pixels).mean((2, 3)).cpu()

    def maps_of(self, pixels: Tensor) -> Tensor:
        """Return the feature maps of pixels [B, K, H, W], float32 [B, C, h, w] on the device."""
        return self._maps(pixels)

    @cached_property
    def _maps(self) -> Callable[[Tensor], Tensor]:
        _ = self.network  # calibrated, if it is untrained
        return feature_maps(self.encoder, self.device)
