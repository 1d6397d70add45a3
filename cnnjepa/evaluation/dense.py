"""Feature maps with masks, and a 1x1 head on them.

Shapes: N images, C channels, h x w cells of a map, K classes, H x W pixels of a mask, R learning rates.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnjepa.data.evaluation import evaluation_batches
from cnnjepa.data.masks import IGNORED, MaskSource
from cnnjepa.errors import RunError
from cnnjepa.evaluation.subject import Split, Subject
from cnnjepa.probes.features import storage
from cnnjepa.randomness import generator
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.evaluation import SegmentTask

_VALUES = 1 << 24  # enlarged outputs in memory at a time, 64 MiB
_BLOCK = 256  # images whose statistics are summed at a time

Tick = Callable[[], None]
Layers = Literal["last", "stages"]


class DenseBatch(NamedTuple):
    """Maps of some images."""

    maps: list[Tensor]
    """float32 [b, C, h, w] of every layer, on the device; the last one is the encoder's output."""
    masks: Tensor
    """uint8 [b, H, W] on the CPU."""
    places: Tensor
    """int64 [b], indices of the images in the split."""


def dense_batches(
    subject: Subject, split: Split, masks: MaskSource, layers: Layers, tick: Tick
) -> Iterator[DenseBatch]:
    """Yield the maps and masks of all images of a split. Raises RunError if a feature is not finite."""
    _ = subject.frozen  # calibrated before the time is taken
    loaded = evaluation_batches(
        subject.source(split), subject.section, subject.encoder.preprocessing.resize, subject.batch_size,
        subject.workers, functools.partial(masks.mask, split),
    )  # fmt: skip
    started = time.monotonic()
    with contextlib.closing(loaded) as batches:
        for batch in batches:
            tick()
            subject.note_skipped(batch.skipped)
            if batch.masks is None:
                continue
            maps = [subject.maps_of(batch.pixels)] if layers == "last" else subject.stage_maps_of(batch.pixels)
            if not all(bool(one.isfinite().all()) for one in maps):
                raise RunError(f"{subject.encoder.label}: features of {subject.data.name} are not finite")
            subject.extraction_seconds += time.monotonic() - started
            yield DenseBatch(maps, batch.masks, batch.places)
            started = time.monotonic()


@dataclass
class Dense:
    """Maps and masks of a whole split, in memory or in memory-mapped files."""

    maps: list[Tensor]
    """float32 [N, C * h * w] of every layer."""
    shapes: list[tuple[int, int, int]]
    """(C, h, w) of every layer."""
    masks: Tensor
    """uint8 [N, H, W]."""
    places: Tensor
    """int64 [N], indices of the images in the split."""

    def at(self, rows: Tensor, device: torch.device) -> list[Tensor]:
        """Return the maps of some images, [b, C, h, w] of every layer."""
        return [one[rows].view(-1, *shape).to(device) for one, shape in zip(self.maps, self.shapes, strict=True)]


def dense_split(subject: Subject, split: Split, masks: MaskSource, layers: Layers, tick: Tick) -> Dense:
    """Return the maps and masks of a split."""
    count, rows = subject.source(split).labels.numel(), 0
    places: list[Tensor] = []
    maps: list[Tensor] = []
    shapes: list[tuple[int, int, int]] = []
    kept, size = torch.empty(0, dtype=torch.uint8), (0, 0)
    for batch in dense_batches(subject, split, masks, layers, tick):
        if not places:
            shapes = [(one.shape[1], one.shape[2], one.shape[3]) for one in batch.maps]
            maps = [storage(count, one[0].numel(), subject.scratch) for one in batch.maps]
            size = (batch.masks.shape[1], batch.masks.shape[2])
            kept = storage(count, size[0] * size[1], subject.scratch, torch.uint8)
        end = rows + batch.places.numel()
        for room, found in zip(maps, batch.maps, strict=True):
            room[rows:end] = found.flatten(1).cpu()
        kept[rows:end] = batch.masks.flatten(1)
        places.append(batch.places)
        rows = end
    if not places:
        raise RunError("no image of this set can be read with its mask; `cnnjepa data check PATH` lists what is wrong")
    return Dense([one[:rows] for one in maps], shapes, kept[:rows].view(-1, *size), torch.cat(places))


def refuse_unknown(masks: Tensor, classes: int, names: Sequence[str]) -> None:
    """Raise ConfigError, which names the first such mask, if masks [b, H, W] hold a class of `classes` or more."""
    wrong = (masks >= classes) & (masks != IGNORED)
    if not bool(wrong.any()):
        return
    row = int(wrong.flatten(1).any(1).nonzero()[0, 0])
    raise ConfigError(
        f"{names[row]} has the value {int(masks[row][wrong[row]].max())}, and the classes are 0 to {classes - 1} "
        f"({IGNORED}: not judged); correct the mask, or give the number of classes with --set segment.classes=N"
    )


@functools.lru_cache(maxsize=16)
def _enlarging(cells: int, pixels: int, device: torch.device) -> Tensor:
    """Return the weights of bilinear interpolation along one side, [pixels, cells]. A product with them has a
    deterministic gradient on every device."""
    with torch.inference_mode(False):  # kept for training, whoever asks first
        unit = torch.eye(cells)[None]
        return F.interpolate(unit, size=pixels, mode="linear", align_corners=False)[0].T.contiguous().to(device)


def enlarged(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Return maps [..., h, w] enlarged bilinearly to `size` (H, W)."""
    down = _enlarging(maps.shape[-2], size[0], maps.device)
    across = _enlarging(maps.shape[-1], size[1], maps.device)
    return torch.matmul(torch.matmul(down, maps), across.T)


Scale = tuple[Tensor, Tensor]
"""Mean and standard deviation of a layer's channels, float32 [C] on the device."""


class Head:
    """A linear head: for every layer a 1x1 convolution of standardised channels, enlarged to the mask and added."""

    def __init__(self, scales: list[Scale], classes: int, device: torch.device) -> None:
        self.classes, self.device, self.scales = classes, device, scales
        self.weights = [torch.zeros(classes, mean.numel(), device=device) for mean, _ in scales]
        self.bias = torch.zeros(classes, device=device)

    @property
    def parameters(self) -> list[Tensor]:
        """Everything that is trained."""
        return [*self.weights, self.bias]

    def outputs(self, maps: list[Tensor], size: Sequence[int]) -> Tensor:
        """Return the output of every class and pixel, [b, K, H, W]."""
        total = self.bias[:, None, None]
        for one, weight, (mean, std) in zip(maps, self.weights, self.scales, strict=True):
            standard = (one - mean[:, None, None]) / std[:, None, None]
            total = total + enlarged(torch.einsum("kc,bchw->bkhw", weight, standard), size)
        return total

    @torch.inference_mode()
    def classified(self, maps: list[Tensor], size: Sequence[int]) -> Tensor:
        """Return the class of every pixel, int64 [b, H, W] on the CPU. Ties go to the lower number."""
        at_once = max(1, _VALUES // (self.classes * size[0] * size[1]))
        parts = zip(*(one.split(at_once) for one in maps), strict=True)
        return torch.cat([self.outputs(list(part), size).argmax(1).cpu() for part in parts])


def _scale(data: Dense, layer: int, rows: Tensor, device: torch.device) -> Scale:
    """Return mean and deviation over the maps at `rows`."""
    channels, cells = data.shapes[layer][0], data.shapes[layer][1] * data.shapes[layer][2]
    sums = torch.zeros(2, channels, dtype=torch.float64)
    for block in rows.split(_BLOCK):
        values = data.maps[layer][block].view(-1, channels, cells).double()
        sums += torch.stack([values.sum((0, 2)), values.square().sum((0, 2))])
    mean, square = sums / (rows.numel() * cells)
    std = (square - mean.square()).clamp(min=0).sqrt()
    std = torch.where(std > 1e-6 * mean.abs().clamp(min=1e-6), std, 1.0)  # a constant channel stays 0
    return mean.float().to(device), std.float().to(device)


def fit_heads(
    data: Dense, rows: Tensor, classes: int, lrs: Sequence[float], settings: SegmentTask, device: torch.device,
    tick: Tick,
) -> list[Head]:  # fmt: skip
    """Fit one head for every learning rate on the images at `rows`, with AdamW and a rate that falls linearly to 0."""
    scales = [_scale(data, layer, rows, device) for layer in range(len(data.maps))]
    heads = [Head(scales, classes, device) for _ in lrs]
    for head in heads:
        for parameter in head.parameters:
            parameter.requires_grad_()
    groups = [{"params": head.parameters, "lr": lr} for head, lr in zip(heads, lrs, strict=True)]
    optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
    size = data.masks.shape[1:]
    at_once = max(1, _VALUES // (classes * size[0] * size[1]))
    order = _order(rows, settings)
    for step in range(settings.steps):
        tick()
        for group, lr in zip(optimizer.param_groups, lrs, strict=True):
            group["lr"] = lr * (1 - step / settings.steps)
        optimizer.zero_grad()
        batch = next(order)
        judged = max(1, int((data.masks[batch] != IGNORED).sum()))
        for part in batch.split(at_once):
            maps, truth = data.at(part, device), data.masks[part].long().to(device)
            for head in heads:
                loss = F.cross_entropy(head.outputs(maps, size), truth, ignore_index=IGNORED, reduction="sum")
                (loss / judged).backward()
        optimizer.step()
    for head in heads:
        for parameter in head.parameters:
            parameter.requires_grad_(False)
    return heads


def _order(rows: Tensor, settings: SegmentTask) -> Iterator[Tensor]:
    """Yield batches of rows in a seeded order, epoch after epoch; the last partial batch of an epoch is dropped."""
    size, epoch = min(settings.batch_size, rows.numel()), 0
    while True:
        shuffled = rows[torch.randperm(rows.numel(), generator=generator(settings.seed, "segment order", epoch))]
        yield from (batch for batch in shuffled.split(size) if batch.numel() == size)
        epoch += 1
