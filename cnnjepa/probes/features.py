"""Features of a frozen encoder, extracted once and kept in memory, or in a file if they are large."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnjepa.data.batches import Normalizer
from cnnjepa.data.evaluation import evaluation_batches
from cnnjepa.data.source import ImageSource, groups_of
from cnnjepa.errors import RunError
from cnnjepa.probes.frozen import FrozenEncoder
from cnnjepa.schemas import DataConfig, PretrainConfig

# Features above this many bytes go to a memory-mapped file, so that memory stays bounded (1.28 M x 2048 float32 are
# 10.5 GB).
_MOST_BYTES_IN_MEMORY = 2 * 2**30
_BLOCK = 65_536  # rows processed at a time

Embed = Callable[[Tensor], Tensor]
"""pixels [B, K, H, W] → features float32 [B, D]."""


@dataclass
class Features:
    """Features float32 [N, D] and labels int64 [N], in the order of the set."""

    values: Tensor
    labels: Tensor
    skipped: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    """Damaged images that were repaired while reading, by name and reason."""
    scratch: Path | None = None
    """Folder for large copies; None means the system's temporary folder."""
    groups: Tensor | None = None
    """Groups of the whole set, int64, whose images are not divided; None without groups."""
    part_of: tuple[Tensor, Tensor] | None = None
    """(labels of the whole set, int64 [N] indices of the rows in it) if rows are missing; None if none is missing."""

    @property
    def whole_set(self) -> tuple[Tensor, Tensor]:
        """Return (labels of the whole set, indices of the rows in it)."""
        return self.part_of or (self.labels, torch.arange(self.labels.numel()))

    def take(self, indices: Tensor) -> "Features":
        """Return the rows at `indices`, copied block by block (into a memory-mapped file if they are large)."""
        values = storage(indices.numel(), self.values.shape[1], self.scratch, self.values.dtype)
        for rows, block in zip(values.split(_BLOCK), indices.split(_BLOCK), strict=True):
            rows.copy_(self.values[block])
        return Features(values, self.labels[indices], scratch=self.scratch)

    def finite(self) -> bool:
        """Return whether every value is finite."""
        return all(bool(block.isfinite().all()) for block in self.values.split(_BLOCK))


def encoder_embed(network: nn.Module, config: PretrainConfig, device: torch.device) -> Embed:
    """Return a function that computes the features of a run's encoder, globally average-pooled; see
    `FrozenEncoder`."""
    return FrozenEncoder(network, Normalizer(config.data, device, config.runtime.channels_last), device).pooled


def pixel_embed(config: PretrainConfig) -> Embed:
    """Return a function that computes normalised pixels, averaged down to at most 32x32 so that the cost stays
    acceptable at any image size."""
    normalize = Normalizer(config.data, torch.device("cpu"), channels_last=False)

    @torch.inference_mode()
    def embed(pixels: Tensor) -> Tensor:
        images = normalize(pixels)
        return F.adaptive_avg_pool2d(images, (min(32, images.shape[2]), min(32, images.shape[3]))).flatten(1)

    return embed


def extract(
    embed: Embed,
    source: ImageSource,
    config: PretrainConfig,
    scratch: Path,
    tick: Callable[[], None] = lambda: None,
) -> Features:
    """Extract the features of a whole data set, with the settings of a run. `tick` is called before every batch, so
    that the caller can stop the extraction."""
    probe = config.probe
    return extract_from(
        source, embed, config.data, probe.resize, probe.feature_batch_size, config.runtime.workers, scratch, tick
    )


def extract_from(
    source: ImageSource,
    embed: Embed,
    section: DataConfig,
    resize: int | None,
    batch_size: int,
    workers: int,
    scratch: Path,
    tick: Callable[[], None],
) -> Features:
    """Extract the features of all images of `source`, which are read as `section` says, see `evaluation_batches`."""
    count, rows, kept, skipped, repaired = source.labels.numel(), 0, [], [], []
    values = torch.empty(0)
    loaded = evaluation_batches(source, section, resize, batch_size, workers)
    with contextlib.closing(loaded) as batches:
        for batch in batches:
            tick()
            skipped += batch.skipped
            repaired += batch.repaired
            if not batch.places.numel():
                continue
            features = embed(batch.pixels)
            if not rows:
                values = storage(count, features.shape[1], scratch)
            values[rows : rows + features.shape[0]] = features
            rows += features.shape[0]
            kept.append(batch.places)
    if not kept:
        raise RunError("no image of this set can be read; `cnnjepa data check PATH` lists what is wrong")
    places = torch.cat(kept)
    return Features(
        values[:rows], source.labels[places], skipped, repaired, scratch, groups_of(source), (source.labels, places)
    )


def storage(count: int, dim: int, scratch: Path | None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return room for `count` rows of `dim` values, [N, D]: in memory, or in a memory-mapped file in `scratch` if they
    are large. Raises RunError if the disk cannot hold them."""
    bytes_needed = count * dim * dtype.itemsize
    if bytes_needed <= _MOST_BYTES_IN_MEMORY:
        return torch.empty(count, dim, dtype=dtype)
    name = tempfile.mktemp(prefix="features-", dir=scratch)
    try:  # if the disk cannot hold a mapped file, writing to it would kill the process without a message
        with open(name, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, bytes_needed)
    except OSError as error:
        raise RunError(f"no disk space for {bytes_needed / 2**30:.1f} GiB of features ({error.strerror})") from None
    return torch.from_file(name, shared=True, size=count * dim, dtype=dtype).view(count, dim)


@contextlib.contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Give a folder for memory-mapped features, which is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="features-", dir=parent) as folder:
        yield Path(folder)
