"""Task `lowshot`: logistic regression on frozen features with few labels (arXiv 2204.07141, 2002.05709)."""

import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnjepa.evaluation.intervals import mean_over_draws
from cnnjepa.evaluation.logistic import fit_path
from cnnjepa.evaluation.subject import Subject
from cnnjepa.evaluation.task import Outcome, Task
from cnnjepa.probes.features import Features
from cnnjepa.randomness import key, uniforms
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.evaluation import LowShotTask
from cnnjepa.schemas.evaluation_result import EvaluationFigure

_BLOCK = 65_536  # validation images classified at a time


class LowShot(Task):
    """See `LowShotTask`."""

    settings: LowShotTask

    def evaluate(self, subject: Subject, tick: Callable[[], None]) -> Outcome:
        settings, train = self.settings, subject.pooled("train")
        members = torch.bincount(train.labels, minlength=subject.classes)
        if int((members == 0).sum()):
            names = [subject.data.train.class_names[c] for c in (members == 0).nonzero()[:, 0].tolist()]
            raise ConfigError(
                f"task lowshot: {subject.data.name} has no training image of {len(names)} of {subject.classes} classes "
                f"({names[0]}), so no draw can have all classes"
            )
        sizes, notes = _sizes(settings, members, subject.data.name)
        figures: dict[str, EvaluationFigure] = {}
        chosen: dict[str, float] = {}
        for name, per_class in sizes.items():
            found, picked = [], []
            for draw in range(settings.draws):
                tick()
                rows = drawn(train.labels, per_class, settings.seed, draw)
                top1, c = self._draw(train.take(rows), subject.pooled("val"), subject, tick)
                found.append(top1)
                picked.append(c)
            figures[name] = mean_over_draws(found)
            chosen[f"c, {name}"] = statistics.median_low(picked)
        return Outcome(figures, chosen=chosen, notes=notes)

    def _draw(self, few: Features, val: Features, subject: Subject, tick: Callable[[], None]) -> tuple[float, float]:
        """Return (top-1 accuracy on the validation images in percent, the chosen C)."""
        rows, labels = _unit(few.values, subject.device), few.labels.to(subject.device)
        c = self._chosen(rows, labels, subject.classes, tick)
        (model,) = fit_path(rows, labels, subject.classes, [c])
        hits = 0
        for block, truth in zip(val.values.split(_BLOCK), val.labels.split(_BLOCK), strict=True):
            tick()
            best = model.scores(_unit(block, subject.device)).argmax(1)
            hits += int((best.cpu() == truth).sum())
        return 100 * hits / val.labels.numel(), c

    def _chosen(self, rows: Tensor, labels: Tensor, classes: int, tick: Callable[[], None]) -> float:
        """Return the C with the highest accuracy in stratified cross-validation, the smallest of equals."""
        settings = self.settings
        folds = min(settings.folds, int(torch.bincount(labels, minlength=classes).min()))
        if folds < 2:
            return settings.c_single
        fold = _folds(labels, folds)
        cs = sorted(settings.cs)
        hits = torch.zeros(len(cs), dtype=torch.int64)
        for held in range(folds):
            tick()
            fit = fold != held
            models = fit_path(rows[fit], labels[fit], classes, cs)
            for place, model in enumerate(models):
                hits[place] += int((model.scores(rows[~fit]).argmax(1) == labels[~fit]).sum())
        return cs[int(hits.argmax())]


def drawn(labels: Tensor, per_class: Tensor, seed: int, draw: int) -> Tensor:
    """Return the indices (int64, ascending) of a draw of `per_class[c]` images of every class c: a function of labels,
    numbers, seed and draw. A larger draw contains a smaller one with the same seed and number."""
    ranks = uniforms(key(seed, "lowshot", draw), torch.arange(labels.numel()), 1)[:, 0]
    chosen = []
    for c, count in enumerate(per_class.tolist()):
        members = (labels == c).nonzero()[:, 0]
        chosen.append(members[ranks[members].argsort(stable=True)[:count]])
    return torch.cat(chosen).sort().values


def _sizes(settings: LowShotTask, members: Tensor, name: str) -> tuple[dict[str, Tensor], list[str]]:
    """Return the number of labelled images of every class by the name of the figure, and notes about figures that are
    left out because the set is too small. Raises ConfigError if such a figure was asked for, or if all are left out."""
    sizes: dict[str, Tensor] = {}
    refused: dict[str, str] = {}
    fewest, total = int(members.min()), int(members.sum())
    for count in settings.shots:
        figure = f"{count} per class"
        if count > fewest:
            refused[figure] = f"shots={count}, but the smallest class has {fewest} training images"
        else:
            sizes[figure] = torch.full_like(members, count)
    for share in settings.shares:
        figure = f"{100 * share:g} % of labels"
        count = round(share * total)
        if count < members.numel():
            refused[figure] = f"shares={share}, but that is {count} images for {members.numel()} classes"
        else:
            sizes[figure] = _spread_over(members, count)
    asked = settings.model_fields_set & {"shots", "shares"}
    for why in refused.values():
        if why.partition("=")[0] in asked or not sizes:
            raise ConfigError(f"task lowshot: {name} is too small for lowshot.{why}")
    return sizes, [f"left out: lowshot.{why}" for why in refused.values()]


def _spread_over(members: Tensor, count: int) -> Tensor:
    """Return how many of `count` images each class gets if they are spread evenly over classes, as far as classes have
    as many: one of each class, then a second of each, and so on."""
    given = torch.zeros_like(members)
    while count > 0:
        open_classes = (given < members).nonzero()[:, 0][:count]
        given[open_classes] += 1
        count -= open_classes.numel()
    return given


def _folds(labels: Tensor, folds: int) -> Tensor:
    """Return the fold of every row, int64 [N]. Rows of a class are dealt in turn. (The rows of a draw are random.)"""
    fold = torch.empty_like(labels)
    for c in labels.unique():
        members = (labels == c).nonzero()[:, 0]
        fold[members] = torch.arange(members.numel(), device=labels.device) % folds
    return fold


def _unit(rows: Tensor, device: torch.device) -> Tensor:
    return F.normalize(rows.to(device).double(), dim=1)
