"""The linear probe is torch's Adam on a linear layer, one per learning rate."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from probe_features import CPU, clouds
from torch import Tensor, nn

from cnnjepa.probes import linear
from cnnjepa.probes.features import Features
from cnnjepa.probes.knn import topk_percent
from cnnjepa.probes.linear import Curve, linear_curve, shuffled_order


@pytest.fixture
def float64_by_default() -> Any:
    """Everything the linear probe allocates is then float64, so that it can be compared to 1e-12."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


class Weights:
    """Keeps the weights at every judging of the linear probe."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[Tensor, Tensor]] = []
        judged: Callable[..., Any] = linear._judge

        def record(judging: Features, weight: Tensor, bias: Tensor, *rest: Any) -> Any:
            self.seen.append((weight.detach().clone(), bias.detach().clone()))
            return judged(judging, weight, bias, *rest)

        monkeypatch.setattr(linear, "_judge", record)


def trained_by_torch(
    train: Features, start: Tensor, classes: int, lr: float, epochs: int, batch: int
) -> list[tuple[Tensor, Tensor]]:
    """(weight, bias) after every epoch with torch's Linear and Adam, fixed order, partial batch dropped."""
    layer = nn.Linear(train.values.shape[1], classes)
    with torch.no_grad():
        layer.weight.copy_(start)
        layer.bias.zero_()
    adam = torch.optim.Adam(layer.parameters(), lr=lr)
    after = []
    for _ in range(epochs):
        for step in range(train.values.shape[0] // batch):
            span = slice(step * batch, (step + 1) * batch)
            adam.zero_grad()
            F.cross_entropy(layer(train.values[span]), train.labels[span]).backward()
            adam.step()
        after.append((layer.weight.detach().clone(), layer.bias.detach().clone()))
    return after


def test_several_learning_rates_at_once_are_separate_runs_of_torchs_adam(
    monkeypatch: pytest.MonkeyPatch, float64_by_default: None
) -> None:
    train, val = clouds(70, dtype=torch.float64), clouds(40, seed=1, dtype=torch.float64)
    lrs, epochs, batch = [1e-3, 1e-2, 0.1], 4, 16  # 70 = 4 x 16 + 6: the last 6 are dropped
    weights = Weights(monkeypatch)
    linear_curve(train, val, 8, [0.0], 1, batch, CPU)
    start = weights.seen.pop()[0]
    assert start.std() > 0
    curve = linear_curve(train, val, 8, lrs, epochs, batch, CPU)
    for rate, lr in enumerate(lrs):
        block = slice(8 * rate, 8 * rate + 8)
        in_order = train.take(shuffled_order(70))
        for epoch, (weight, bias) in enumerate(trained_by_torch(in_order, start, 8, lr, epochs, batch)):
            assert (weights.seen[epoch][0][block] - weight).abs().max().item() < 1e-11
            assert (weights.seen[epoch][1][block] - bias).abs().max().item() < 1e-11
            scores = val.values @ weight.T + bias
            assert curve.accuracies[epoch][rate] == topk_percent(scores, val.labels)


def test_several_learning_rates_at_once_are_separate_runs_in_float32() -> None:
    train, val = clouds(200), clouds(100, seed=1)
    lrs = [1e-3, 1e-2, 0.1]
    together = linear_curve(train, val, 8, lrs, 5, 32, CPU).accuracies
    for rate, lr in enumerate(lrs):
        alone = linear_curve(train, val, 8, [lr], 5, 32, CPU).accuracies
        for epoch in range(5):  # rounding may move an image on the border
            assert together[epoch][rate] == pytest.approx(alone[epoch][0], abs=1.01)


def test_the_images_of_a_partial_batch_do_not_train() -> None:
    train, val = clouds(70), clouds(40, seed=1)
    dropped = shuffled_order(70)[64:]
    spoilt = Features(train.values.index_fill(0, dropped, float("nan")), train.labels)
    assert linear_curve(train, val, 8, [0.1], 3, 16, CPU) == linear_curve(spoilt, val, 8, [0.1], 3, 16, CPU)
    used = shuffled_order(70)[63:64]
    spoilt = Features(train.values.index_fill(0, used, float("nan")), train.labels)
    assert linear_curve(train, val, 8, [0.1], 3, 16, CPU) != linear_curve(spoilt, val, 8, [0.1], 3, 16, CPU)


def test_a_set_smaller_than_a_batch_is_one_batch() -> None:
    train, val = clouds(30), clouds(40, seed=1)
    assert linear_curve(train, val, 8, [0.1], 3, 512, CPU) == linear_curve(train, val, 8, [0.1], 3, 30, CPU)


def test_last_only_judges_once_and_trains_the_same() -> None:
    train, val = clouds(70), clouds(40, seed=1)
    curve = linear_curve(train, val, 8, [0.1], 5, 16, CPU)
    last = linear_curve(train, val, 8, [0.1], 5, 16, CPU, last_only=True)
    assert len(curve.accuracies) == 5
    assert last.accuracies == curve.accuracies[-1:]


def test_the_linear_probe_learns_what_can_be_learned() -> None:
    train, val = clouds(400, noise=0.3), clouds(200, seed=1, noise=0.3)
    assert linear_curve(train, val, 8, [0.01], 30, 64, CPU).accuracies[-1][0][0] > 95


def test_the_earliest_of_equally_good_epochs_is_the_best() -> None:
    curve = Curve([[(10.0, 50.0), (20.0, 50.0)], [(30.0, 60.0), (30.0, 90.0)], [(30.0, 90.0), (5.0, 90.0)]])
    assert curve.best() == (1, 0)
