"""The two probe protocols on cached features (docs/sources.md#probes).

`published`: the linear probe's best epoch on the validation set, and k-NN with the published k. `held_out`: a
stratified tenth of the training set selects epoch, learning rate and k. The probe is then refit on the whole training
set, and the validation set is used once.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from cnnjepa.data.held_out import held_out_split
from cnnjepa.probes.features import Features
from cnnjepa.probes.knn import chosen_k, knn_accuracies, usable_k
from cnnjepa.probes.linear import linear_curve
from cnnjepa.schemas import ProbeConfig, ProbeFigures, Probes, Selection
from cnnjepa.schemas.evaluation import HeldOutTask

Tick = Callable[[], None]


class Judged(NamedTuple):
    """Result of the probes."""

    probes: Probes
    selection: Selection | None


def split_rows(train: Features, config: ProbeConfig | HeldOutTask) -> tuple[Tensor, Tensor]:
    """Return (fitting, held-out) rows, ascending. The split is that of the whole training set, which supervised
    training also uses, even if only some of the images are among the rows."""
    labels, places = train.whole_set
    _, held = held_out_split(labels, config.held_out_fraction, config.split_seed, train.groups)
    is_held = torch.zeros_like(labels, dtype=torch.bool)
    is_held[held] = True
    rows = is_held[places]
    return (~rows).nonzero()[:, 0], rows.nonzero()[:, 0]


def judge(
    train: Features, val: Features, classes: int, config: ProbeConfig, device: torch.device, tick: Tick = lambda: None
) -> Judged:
    """Run both probes under every requested protocol."""
    published = _published(train, val, classes, config, device, tick) if "published" in config.protocols else None
    held_out, selection = None, None
    if "held_out" in config.protocols:
        held_out, selection = _held_out(train, val, classes, config, device, tick)
    return Judged(Probes(published=published, held_out=held_out), selection)


def _published(
    train: Features, val: Features, classes: int, config: ProbeConfig, device: torch.device, tick: Tick
) -> ProbeFigures:
    curve = linear_curve(
        train, val, classes, [config.linear_lr], config.linear_epochs, config.linear_batch_size, device, tick=tick
    )
    tick()
    k = usable_k(config.knn_k, train.labels.numel())
    ((knn1, knn5),) = knn_accuracies(train, val, classes, [k], config.knn_temperature, device)
    return ProbeFigures(
        linear_top1=max(row[0][0] for row in curve.accuracies),
        linear_top5=max(row[0][1] for row in curve.accuracies),
        knn_top1=knn1,
        knn_top5=knn5,
    )


def _held_out(
    train: Features, val: Features, classes: int, config: ProbeConfig, device: torch.device, tick: Tick
) -> tuple[ProbeFigures, Selection]:
    fit_index, held_index = split_rows(train, config)
    fit, held = train.take(fit_index), train.take(held_index)
    curve = linear_curve(
        fit, held, classes, config.held_out_lrs, config.linear_epochs, config.linear_batch_size, device, tick=tick
    )
    epoch, rate = curve.best()
    tick()
    k, knn_held_out = chosen_k(fit, held, classes, config.held_out_ks, config.knn_temperature, device)
    refit = linear_curve(
        train,
        val,
        classes,
        [config.held_out_lrs[rate]],
        epoch + 1,
        config.linear_batch_size,
        device,
        last_only=True,
        tick=tick,
    )
    ((knn1, knn5),) = knn_accuracies(train, val, classes, [k], config.knn_temperature, device)
    linear1, linear5 = refit.accuracies[-1][0]
    figures = ProbeFigures(linear_top1=linear1, linear_top5=linear5, knn_top1=knn1, knn_top5=knn5)
    selection = Selection(
        linear_top1=curve.accuracies[epoch][rate][0],
        linear_lr=config.held_out_lrs[rate],
        linear_epoch=epoch + 1,
        knn_top1=knn_held_out,
        knn_k=k,
    )
    return figures, selection


def selection_knn(train: Features, classes: int, config: ProbeConfig, device: torch.device) -> float:
    """Return the best k-NN top-1 accuracy, in percent, on the held-out part of `train`. This figure is monitored during
    training."""
    fit_index, held_index = split_rows(train, config)
    fit, held = train.take(fit_index), train.take(held_index)
    return chosen_k(fit, held, classes, config.held_out_ks, config.knn_temperature, device)[1]
