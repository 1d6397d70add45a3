"""Linear probe on cached features, for several learning rates at once.

Adam, cross-entropy, one fixed shuffled order, last partial batch dropped (docs/sources.md#probe-linear,
docs/sources.md#probe-batch). The order is shuffled because folders are sorted by class, so that every batch would hold
a single class. One matrix holds the weights for all learning rates, so that a step reads the features once for all of
them. Adam is elementwise, so each block of columns trains as it would alone.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnjepa.probes.features import Features
from cnnjepa.probes.knn import percent, topk_hits
from cnnjepa.randomness import generator
from cnnjepa.tensor_ops.matmul import linear

_BLOCK = 8192  # rows evaluated at a time; the logits of five rates and 1,000 classes are then 160 MB


class Curve(NamedTuple):
    """Accuracies in percent on the evaluated features, (top-1, top-5) for [epoch][learning rate]."""

    accuracies: list[list[tuple[float, float]]]

    def best(self) -> tuple[int, int]:
        """Return (epoch from 0, index of the learning rate) of the best top-1. The earliest of equals wins."""
        cells = [(e, r) for e, row in enumerate(self.accuracies) for r in range(len(row))]
        return max(cells, key=lambda cell: (self.accuracies[cell[0]][cell[1]][0], -cell[0], -cell[1]))


class Classifiers(NamedTuple):
    """The linear layers after an epoch, in the order of the learning rates. They are changed by the next step."""

    weight: Tensor
    """[rates · classes, D] on the device."""
    bias: Tensor
    """[rates · classes] on the device."""
    hits: list[Tensor]
    """bool [M, 2] for every learning rate: top-1 and top-5 hits of the evaluated images."""


Observe = Callable[[int, Classifiers], None]
"""Receives (epoch from 0, linear layers)."""


def shuffled_order(count: int) -> Tensor:
    """Return the order in which every epoch visits `count` rows, int64 [count]; the same for every probe with this
    count."""
    return torch.randperm(count, generator=generator(0, "linear_order"))


def linear_curve(
    train: Features,
    judge: Features,
    classes: int,
    lrs: Sequence[float],
    epochs: int,
    batch_size: int,
    device: torch.device,
    last_only: bool = False,
    tick: Callable[[], None] = lambda: None,
    observe: Observe = lambda epoch, classifiers: None,
) -> Curve:
    """Train one linear layer per learning rate. Evaluates them after every epoch, or only after the last. `observe` is
    called after each evaluation."""
    dim, count = train.values.shape[1], len(lrs)
    start = torch.empty(classes, dim).uniform_(-(dim**-0.5), dim**-0.5, generator=generator(0, "linear_probe"))
    weight = start.repeat(count, 1).to(device).requires_grad_()  # [rates · classes, dim]
    bias = torch.zeros(count * classes, device=device, requires_grad=True)
    adam = _ManyRateAdam([weight, bias], lrs, classes, device)
    batch_size = min(batch_size, train.values.shape[0])
    order = shuffled_order(train.values.shape[0])
    accuracies = []
    for epoch in range(epochs):
        tick()
        for first in range(0, train.values.shape[0] - batch_size + 1, batch_size):
            rows = order[first : first + batch_size]
            x, y = train.values[rows].to(device), train.labels[rows].to(device)
            logits = linear(x, weight, bias).view(-1, count, classes).transpose(0, 1)
            losses = F.cross_entropy(logits.reshape(-1, classes), y.repeat(count), reduction="none")
            weight.grad = bias.grad = None
            losses.view(count, -1).mean(1).sum().backward()
            adam.step()
        if not last_only or epoch == epochs - 1:
            hits = _judge(judge, weight, bias, count, classes, device)
            accuracies.append([percent(of_rate) for of_rate in hits])
            observe(epoch, Classifiers(weight.detach(), bias.detach(), hits))
    return Curve(accuracies)


@torch.no_grad()
def _judge(
    features: Features, weight: Tensor, bias: Tensor, count: int, classes: int, device: torch.device
) -> list[Tensor]:
    """Return bool [M, 2] for every learning rate: whether the label has the best logit, and one of the best five."""
    hits: list[list[Tensor]] = [[] for _ in range(count)]
    for rows, labels in zip(features.values.split(_BLOCK), features.labels.split(_BLOCK), strict=True):
        logits = linear(rows.to(device), weight, bias).view(-1, count, classes)
        for rate, seen in enumerate(hits):
            seen.append(topk_hits(logits[:, rate], labels.to(device)).cpu())
    return [torch.cat(seen) for seen in hits]


class _ManyRateAdam:
    """Adam (β 0.9, 0.999; ε 1e-8) with a separate learning rate for every block of `classes` rows."""

    def __init__(self, parameters: Sequence[Tensor], lrs: Sequence[float], classes: int, device: torch.device) -> None:
        self._parameters = list(parameters)
        self._lr = torch.tensor(lrs, device=device).repeat_interleave(classes)
        self._first = [torch.zeros_like(p) for p in parameters]
        self._second = [torch.zeros_like(p) for p in parameters]
        self._steps = 0

    @torch.no_grad()
    def step(self) -> None:
        self._steps += 1
        first_correction, second_correction = 1 - 0.9**self._steps, 1 - 0.999**self._steps
        for p, first, second in zip(self._parameters, self._first, self._second, strict=True):
            assert p.grad is not None
            first.lerp_(p.grad, 0.1)
            second.mul_(0.999).addcmul_(p.grad, p.grad, value=0.001)
            scale = (self._lr / first_correction).view(-1, *[1] * (p.dim() - 1))
            p.sub_(scale * first / ((second / second_correction).sqrt() + 1e-8))
