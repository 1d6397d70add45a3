"""Task `segment`: the class of every pixel from frozen feature maps, by a linear head (arXiv 2304.07193) and by the
nearest training cells (after arXiv 2306.01667)."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cnnjepa.data.held_out import held_out_split
from cnnjepa.data.masks import IGNORED, MaskSource, masks_of
from cnnjepa.data.source import groups_of
from cnnjepa.evaluation.dense import Dense, Head, dense_batches, dense_split, enlarged, fit_heads, refuse_unknown
from cnnjepa.evaluation.overlap import class_ious, counted, mean_iou, overlaps
from cnnjepa.evaluation.subject import Subject
from cnnjepa.evaluation.task import Outcome, Task
from cnnjepa.probes.knn import nearest, usable_k
from cnnjepa.randomness import key, uniforms
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.evaluation import SegmentTask

_BLOCK = 256  # images judged at a time
_PIXELS = 1 << 24  # values of classes of pixels in memory at a time, 64 MiB

LINEAR, NEAREST = "mIoU", "mIoU, k-NN"

Tick = Callable[[], None]


class Segment(Task):
    """See `SegmentTask`."""

    settings: SegmentTask

    def evaluate(self, subject: Subject, tick: Tick) -> Outcome:
        settings = self.settings
        masks = masks_of(subject.section, subject.data, settings.masks)
        if masks is None:
            raise ConfigError(f"task segment needs masks, and {subject.data.name} has none")
        train = dense_split(subject, "train", masks, settings.layers, tick)
        classes = self._classes(train, masks)
        absent = absent_classes(train.masks, classes) if settings.classes is None else []
        head, chosen = self._fitted(train, classes, subject, tick)
        bank = Bank.of(train, classes, settings)
        chosen["k"] = float(usable_k(settings.k, bank.labels.numel()))
        del train
        counts: dict[str, list[tuple[Tensor, Tensor]]] = {LINEAR: [], NEAREST: []}
        for batch in dense_batches(subject, "val", masks, settings.layers, tick):
            refuse_unknown(batch.masks, classes, [masks.name("val", place) for place in batch.places.tolist()])
            size = batch.masks.shape[1:]
            found = head.classified(batch.maps, size)
            counts[LINEAR].append(overlaps(found, batch.masks, classes))
            found = bank.classified(batch.maps[-1], size, int(chosen["k"]), settings.temperature, tick)
            counts[NEAREST].append(overlaps(found, batch.masks, classes))
        names = masks.class_names if len(masks.class_names) == classes else [f"class {c}" for c in range(classes)]
        outcome = outcome_of(counts, list(names), chosen)
        outcome.notes += absent
        return outcome

    def _classes(self, train: Dense, masks: MaskSource) -> int:
        """Return the number of classes. Raises ConfigError if there are fewer than two, or a mask has a larger one."""
        classes = self.settings.classes
        if classes is None:
            classes = 1 + max(int(block[block != IGNORED].max()) for block in _judged(train.masks))
            if classes < 2:
                raise ConfigError(f"all pixels of the training masks ({masks.name('train', 0)}, …) are of class 0")
        for rows in torch.arange(train.places.numel()).split(_BLOCK):
            names = [masks.name("train", place) for place in train.places[rows].tolist()]
            refuse_unknown(train.masks[rows], classes, names)
        return classes

    def _fitted(self, train: Dense, classes: int, subject: Subject, tick: Tick) -> tuple[Head, dict[str, float]]:
        """Choose the learning rate on held-out training images, and fit a head on all of them."""
        settings, source = self.settings, subject.source("train")
        _, held = held_out_split(source.labels, settings.held_out_fraction, settings.split_seed, groups_of(source))
        is_held = torch.isin(train.places, held)
        fit, held_rows = (~is_held).nonzero()[:, 0], is_held.nonzero()[:, 0]
        chosen: dict[str, float] = {"lr": settings.lrs[0]}
        if len(settings.lrs) > 1:
            if not fit.numel() or not held_rows.numel():
                raise ConfigError(
                    f"task segment: of {train.places.numel()} training images none can be held out to choose the "
                    "learning rate; give more images, or one rate with --set segment.lrs=[0.003]"
                )
            heads = fit_heads(train, fit, classes, settings.lrs, settings, subject.device, tick)
            scores = [_held_out_iou(head, train, held_rows, classes) for head in heads]
            best = max(range(len(scores)), key=lambda place: (scores[place], -place))
            chosen = {"lr": settings.lrs[best], "held_out_mIoU": scores[best]}
        rows = torch.arange(train.places.numel())
        (head,) = fit_heads(train, rows, classes, [chosen["lr"]], settings, subject.device, tick)
        return head, chosen


@dataclasses.dataclass
class Bank:
    """Cells of training maps with their classes."""

    values: Tensor
    """float32 [n, C]."""
    labels: Tensor
    """int64 [n]."""
    classes: int

    @classmethod
    def of(cls, train: Dense, classes: int, settings: SegmentTask) -> "Bank":
        """Return the cells of the last map, or a seeded part of them. Cells without a judged pixel are left out."""
        channels, height, width = train.shapes[-1]
        labels = torch.cat(
            [cell_classes(part, classes, (height, width)) for part in train.masks.split(_BLOCK)]
        ).flatten()
        usable = (labels != IGNORED).nonzero()[:, 0]
        if usable.numel() > settings.bank_cells:
            ranks = uniforms(key(settings.seed, "segment bank"), usable, 1)[:, 0]
            usable = usable[ranks.argsort(stable=True)[: settings.bank_cells]].sort().values
        cells = height * width
        values = train.maps[-1].view(-1, channels, cells)[usable // cells, :, usable % cells]
        return cls(values, labels[usable], classes)

    @torch.inference_mode()
    def classified(self, maps: Tensor, size: torch.Size, k: int, temperature: float, tick: Tick) -> Tensor:
        """Return the class of every pixel, int64 [b, H, W] on the CPU: the share of votes of every class in every cell,
        enlarged bilinearly. Ties go to the lower number."""
        _, channels, height, width = maps.shape
        labels, found = self.labels.to(maps.device), []
        for part in maps.split(max(1, _PIXELS // (self.classes * size[0] * size[1]))):
            tick()
            queries = part.permute(0, 2, 3, 1).reshape(-1, channels)
            similarity, index = nearest(self.values, queries, k, maps.device)
            votes = ((similarity - similarity[:, :1]) / temperature).exp()
            shares = votes.new_zeros(queries.shape[0], self.classes).scatter_add_(1, labels[index], votes)
            shares = shares / votes.sum(1, keepdim=True)
            shares = shares.view(-1, height, width, self.classes).permute(0, 3, 1, 2)
            found.append(enlarged(shares, size).argmax(1).cpu())
        return torch.cat(found)


def cell_classes(masks: Tensor, classes: int, cells: tuple[int, int]) -> Tensor:
    """Return the class of most judged pixels of every cell, int64 [b, h, w]; 255 for a cell without one. Ties
    go to the lower number. A pixel on the border of two cells counts in both."""
    found = []
    for part in masks.split(max(1, _PIXELS // (classes * masks.shape[1] * masks.shape[2]))):
        hot = F.one_hot(torch.where(part == IGNORED, classes, part).long(), classes + 1)[..., :classes]
        shares = F.adaptive_avg_pool2d(hot.permute(0, 3, 1, 2).float(), cells)
        found.append(torch.where(shares.amax(1) > 0, shares.argmax(1), IGNORED))
    return torch.cat(found)


def absent_classes(masks: Tensor, classes: int) -> list[str]:
    """Return a note about classes below the largest one that no training mask has: a stray value may be the cause."""
    seen = torch.zeros(IGNORED + 1, dtype=torch.bool)
    for block in masks.split(_BLOCK):
        seen[block.unique().long()] = True
    missing = (~seen[:classes]).nonzero()[:, 0].tolist()
    if not missing:
        return []
    which = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
    return [f"{len(missing)} of {classes} classes are in no training mask: {which}; is {classes - 1} a stray value?"]


def _judged(masks: Tensor) -> list[Tensor]:
    """Return blocks of masks that hold a judged pixel. Raises ConfigError if there are none."""
    blocks = [block for block in masks.split(_BLOCK) if bool((block != IGNORED).any())]
    if not blocks:
        raise ConfigError(f"all pixels of the training masks are {IGNORED}, which means that they are not judged")
    return blocks


def _held_out_iou(head: Head, train: Dense, rows: Tensor, classes: int) -> float:
    both, either = torch.zeros(classes), torch.zeros(classes)
    for part in rows.split(_BLOCK):
        found = overlaps(
            head.classified(train.at(part, head.device), train.masks.shape[1:]), train.masks[part], classes
        )
        both, either = both + found[0].sum(0), either + found[1].sum(0)
    ious = class_ious(both.double().numpy(), either.double().numpy())
    return float(np.nanmean(ious)) if not np.isnan(ious).all() else 0.0


def outcome_of(counts: dict[str, list[tuple[Tensor, Tensor]]], names: list[str], chosen: dict[str, float]) -> Outcome:
    """Return the outcome of (intersections, unions) [b, K] of parts of the images, by figure. `names` are the classes'.
    Images without a judged pixel are left out. Raises ConfigError if there are no others."""
    figures, per_image = {}, {}
    details: dict[str, Any] = {}
    for figure, parts in counts.items():
        both, either = (torch.cat([part[side] for part in parts]).double().numpy() for side in (0, 1))
        judged = either.any(1)
        if not judged.any():
            raise ConfigError(f"all pixels of the validation masks are {IGNORED}, which means that they are not judged")
        both, either = both[judged], either[judged]
        figures[figure] = mean_iou(both, either)
        for name, values in zip(counted(figure), (both, either), strict=True):
            per_image[name] = values.astype(np.float32)
        ious = class_ious(both.sum(0), either.sum(0))
        details[figure.replace("mIoU", "IoU")] = {
            name: None if np.isnan(iou) else float(iou) for name, iou in zip(names, ious, strict=True)
        }
    return Outcome(figures, per_image, chosen, details=details)
