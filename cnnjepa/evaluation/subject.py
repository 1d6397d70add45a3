"""A frozen encoder and a set of images, as tasks get them, with features that are extracted once for all tasks."""

import time
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from cnnjepa.data import DataSet
from cnnjepa.data.source import ImageSource
from cnnjepa.errors import RunError
from cnnjepa.probes.features import Embed, Features, extract_from
from cnnjepa.probes.floors import calibrate_on
from cnnjepa.probes.frozen import FrozenEncoder
from cnnjepa.references.encoder import ReferencedEncoder, stage_maps
from cnnjepa.references.frozen import frozen_encoder
from cnnjepa.schemas import DataConfig

Split = Literal["train", "val"]

# Images at a time. On two cores of a CPU, 64 are 1.3 to 1.6 x as fast as 256 (measured at 32 px).
_ON_CPU, _ON_GPU = 64, 256


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
        batch_size: int | None = None,
    ) -> None:
        """`batch_size` is the number of images at a time; None chooses by device."""
        self.encoder, self.data, self.section, self.device = encoder, data, section, device
        self.scratch, self.workers = scratch, workers
        self.batch_size = batch_size or (_ON_CPU if device.type == "cpu" else _ON_GPU)
        self._tick = tick
        self._pooled: dict[Split, Features] = {}
        self.extraction_seconds = 0.0
        """Wall time of all extractions so far."""
        self.skipped = list(data.skipped)
        """Unreadable images of the set, by name and reason."""

    @property
    def classes(self) -> int:
        """Number of classes; 0 without labels."""
        return self.data.classes

    @cached_property
    def frozen(self) -> FrozenEncoder:
        """The encoder on the device. The batch-norm statistics of an untrained encoder are averages over training
        images of the set; those with which torch begins belong to no network."""
        found = frozen_encoder(self.encoder, self.device)
        if self.encoder.untrained:
            calibrate_on(
                self.data.train, found.network, found.normalize, self.section, self.encoder.preprocessing.resize,
                self.device, workers=self.workers,
            )  # fmt: skip
        return found

    def source(self, split: Split) -> ImageSource:
        """The images of a split."""
        return self.data.train if split == "train" else self.data.val

    def pooled(self, split: Split) -> Features:
        """Return the globally average-pooled features of a split, float32 [N, C]. They are extracted once. Raises
        RunError if a feature is not finite."""
        if split not in self._pooled:
            self._pooled[split] = self.extracted(self.source(split), self.embed)
            self.note_skipped(self._pooled[split].skipped)
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

    def embed(self, pixels: Tensor) -> Tensor:
        """Return the pooled features of pixels [B, K, H, W], float32 [B, C] on the CPU."""
        return self.frozen.pooled(pixels)

    def maps_of(self, pixels: Tensor) -> Tensor:
        """Return the feature maps of pixels [B, K, H, W], float32 [B, C, h, w] on the device."""
        return self.frozen.maps(pixels)

    def stage_maps_of(self, pixels: Tensor) -> list[Tensor]:
        """Return the maps of the encoder's stages as `maps_of`, finest first; see `stage_maps`."""
        maps = self.frozen.computed(partial(stage_maps, self.encoder), pixels)
        return [one.float() for one in maps]

    def note_skipped(self, lines: Iterable[str]) -> None:
        """Add unreadable images, each once."""
        self.skipped = list(dict.fromkeys([*self.skipped, *lines]))
