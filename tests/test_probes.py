"""Probes and diagnostics against independent references: brute force, torch.optim.Adam, numpy, scipy.

Shapes: N bank features, Q queries, D channels, C classes.
"""

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from torch import Tensor, nn

from cnnjepa.data import DataSet, open_data
from cnnjepa.data.batches import Normalizer
from cnnjepa.data.resident import ResidentSource
from cnnjepa.encoders import build_backbone
from cnnjepa.errors import ImageError, RunError
from cnnjepa.probes import assess, evaluate, features, glance, knn, linear
from cnnjepa.probes.diagnostics import diagnose, feature_std, rankme
from cnnjepa.probes.evaluate import held_out_split, judge, selection_knn
from cnnjepa.probes.features import Features, encoder_embed, extract, pixel_embed, scratch_folder
from cnnjepa.probes.floors import untrained_encoder
from cnnjepa.probes.interval import wilson
from cnnjepa.probes.knn import knn_accuracies, topk_percent, usable_k
from cnnjepa.probes.linear import Curve, linear_curve, shuffled_order
from cnnjepa.schemas import PretrainConfig, ProbeConfig, Probes, load_config, probe_hash

CPU = torch.device("cpu")


@pytest.fixture
def float64_by_default() -> Any:
    """Everything the linear probe allocates is then float64, so that it can be compared to 1e-12."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def clouds(
    count: int, classes: int = 8, dim: int = 12, seed: int = 0, noise: float = 1.5, dtype: torch.dtype = torch.float32
) -> Features:
    """Overlapping Gaussian classes, the centres of which are the same for every seed; images in class order mixed."""
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=draw)
    values = centres[labels] + noise * torch.randn(count, dim, generator=draw, dtype=torch.float64)
    return Features(values.to(dtype), labels)


# --- features -----------------------------------------------------------------------------------------------------


def test_features_of_a_run_that_trains_in_bf16_are_float32() -> None:
    exact, mixed = load_config("smoke"), load_config("smoke", overrides=["precision=bf16"])
    encoder, pixels = build_backbone(exact.encoder, 0), torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    found = encoder_embed(encoder, mixed, CPU)(pixels)
    assert torch.equal(found, encoder_embed(encoder, exact, CPU)(pixels))
    with torch.autocast("cpu", torch.bfloat16):  # nor may a caller's autocast reach them
        assert torch.equal(found, encoder_embed(encoder, mixed, CPU)(pixels))


def test_results_from_bf16_features_do_not_answer_for_float32_ones() -> None:
    exact, mixed = load_config("smoke"), load_config("smoke", overrides=["precision=bf16"])
    assert probe_hash(exact) != probe_hash(mixed)


# --- k-NN ---------------------------------------------------------------------------------------------------------


def brute_force(bank: Features, queries: Features, classes: int, k: int, temperature: float) -> tuple[float, float]:
    """(top-1, top-5) in percent by sorting everything, one query after the other, in float64."""
    rows = bank.values.double().numpy()
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    hits1 = hits5 = 0
    for query, label in zip(queries.values.double().numpy(), queries.labels.tolist(), strict=True):
        similarity = rows @ (query / np.linalg.norm(query))
        nearest = np.argsort(-similarity, kind="stable")[:k]
        votes = np.zeros(classes)
        for place in nearest:  # shifted by the largest: the same order of classes, no overflow
            votes[int(bank.labels[place])] += math.exp((similarity[place] - similarity.max()) / temperature)
        ranking = sorted(range(classes), key=lambda c: (-votes[c], c))
        hits1 += ranking[0] == label
        hits5 += label in ranking[:5]
    return 100 * hits1 / len(queries.labels), 100 * hits5 / len(queries.labels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_knn_is_the_brute_force_vote(dtype: torch.dtype, temperature: float) -> None:
    bank, queries = clouds(300, dtype=dtype), clouds(80, seed=1, dtype=dtype)
    ks = [1, 7, 30, 300]
    for k, found in zip(ks, knn_accuracies(bank, queries, 8, ks, temperature, CPU), strict=True):
        assert found == pytest.approx(brute_force(bank, queries, 8, k, temperature), abs=1e-9)
    assert 30 < found[0] < 100 and found[1] > found[0]  # the problem is neither trivial nor hopeless


def test_the_vote_is_weighted() -> None:
    """Two far neighbours of class 0 outvote one near one of class 1 at a high temperature only."""
    bank = Features(torch.tensor([[1.0, 0.8], [1.0, -0.8], [1.0, 0.0]]), torch.tensor([0, 0, 1]))
    query = Features(torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
    assert knn_accuracies(bank, query, 2, [3], 10.0, CPU) == [(0.0, 100.0)]
    assert knn_accuracies(bank, query, 2, [3], 0.1, CPU) == [(100.0, 100.0)]


@pytest.mark.parametrize("temperature", [0.01, 0.001])
def test_knn_at_a_low_temperature_is_the_brute_force_vote(temperature: float) -> None:
    bank, queries = clouds(300), clouds(80, seed=1)
    for side in (bank, queries):  # all similar, as features after a ReLU are
        side.values += 2
    (found,) = knn_accuracies(bank, queries, 8, [30], temperature, CPU)
    assert found == pytest.approx(brute_force(bank, queries, 8, 30, temperature), abs=1e-9)


@pytest.mark.parametrize(("queries_at_once", "bank_at_once"), [(7, 13), (1, 1), (80, 299), (1000, 1000)])
def test_reading_in_blocks_changes_no_neighbour(
    monkeypatch: pytest.MonkeyPatch, queries_at_once: int, bank_at_once: int
) -> None:
    bank, queries = clouds(300, dtype=torch.float64), clouds(80, seed=1, dtype=torch.float64)
    whole_similarity, whole_index = knn.nearest(bank.values, queries.values, 20, CPU)
    monkeypatch.setattr(knn, "_QUERIES", queries_at_once)
    monkeypatch.setattr(knn, "_BANK", bank_at_once)
    similarity, index = knn.nearest(bank.values, queries.values, 20, CPU)
    assert torch.equal(index, whole_index)
    assert (similarity - whole_similarity).abs().max().item() < 1e-12
    assert (similarity.diff(dim=1) <= 0).all()


def test_scale_of_features_does_not_matter_to_knn() -> None:
    bank, queries = clouds(200), clouds(50, seed=1)
    scales = torch.rand(200, 1, generator=torch.Generator().manual_seed(5)) * 100 + 0.1
    scaled = Features(bank.values * scales, bank.labels)
    assert knn_accuracies(scaled, queries, 8, [10], 0.1, CPU) == knn_accuracies(bank, queries, 8, [10], 0.1, CPU)


def test_equal_votes_go_to_the_lower_class_number() -> None:
    bank = Features(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([2, 1]))
    for label, top1 in ((1, 100.0), (2, 0.0)):
        query = Features(torch.tensor([[1.0, 0.0]]), torch.tensor([label]))
        assert knn_accuracies(bank, query, 3, [2], 0.1, CPU) == [(top1, 100.0)]


@given(data=st.data(), classes=st.integers(2, 12), count=st.integers(1, 20))
def test_top_1_and_top_5_are_counted_by_rank(data: st.DataObject, classes: int, count: int) -> None:
    scores = torch.tensor([data.draw(st.permutations(range(classes))) for _ in range(count)], dtype=torch.float32)
    labels = torch.tensor(data.draw(st.lists(st.integers(0, classes - 1), min_size=count, max_size=count)))
    ranks = [int((scores[i] > scores[i, labels[i]]).sum()) for i in range(count)]
    top1, top5 = topk_percent(scores, labels)
    assert top1 == pytest.approx(100 * sum(rank == 0 for rank in ranks) / count)
    assert top5 == pytest.approx(100 * sum(rank < 5 for rank in ranks) / count)


@given(k=st.integers(1, 500), bank=st.integers(1, 5000))
def test_usable_k_is_at_most_a_tenth_of_the_bank_and_at_least_one(k: int, bank: int) -> None:
    assert usable_k(k, bank) == (1 if bank < 20 else min(k, math.floor(bank / 10)))


def test_the_papers_k_is_used_from_2000_images_on() -> None:
    assert [usable_k(200, n) for n in (5, 640, 1999, 2000, 126_689)] == [1, 64, 199, 200, 200]


# --- Linear probe -------------------------------------------------------------------------------------------------


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


# --- Protocols ----------------------------------------------------------------------------------------------------


@given(
    labels=st.lists(st.integers(0, 4), min_size=2, max_size=80),
    fraction=st.sampled_from([0.1, 0.25, 0.4]),
    seed=st.integers(0, 100),
)
def test_the_held_out_split_is_stratified_disjoint_complete_and_seeded(
    labels: list[int], fraction: float, seed: int
) -> None:
    fit, held = held_out_split(torch.tensor(labels), fraction, seed)
    assert sorted(fit.tolist() + held.tolist()) == list(range(len(labels)))
    assert fit.tolist() == sorted(fit.tolist()) and held.tolist() == sorted(held.tolist())
    taken = Counter(labels[i] for i in held.tolist())
    for label, count in Counter(labels).items():
        assert taken[label] == (max(1, round(count * fraction)) if count > 1 else 0)
    again = held_out_split(torch.tensor(labels), fraction, seed)
    assert torch.equal(fit, again[0]) and torch.equal(held, again[1])


def test_seeds_hold_out_other_images_and_every_image_as_often() -> None:
    labels = torch.arange(4).repeat(25)
    times = torch.zeros(100)
    for seed in range(200):
        times[held_out_split(labels, 0.2, seed)[1]] += 1
    assert times.sum() == 200 * 20
    assert (times / 200 - 0.2).abs().max() < 5 * math.sqrt(0.2 * 0.8 / 200)


def probe_config(**settings: Any) -> ProbeConfig:
    return ProbeConfig(
        **{
            "linear_epochs": 6,
            "linear_batch_size": 32,
            "held_out_lrs": (1e-3, 0.03),
            "held_out_ks": (3, 10, 40),
            "knn_k": 20,
            **settings,
        }
    )


def test_published_takes_the_best_epoch_and_the_published_k() -> None:
    train, val = clouds(400), clouds(100, seed=1)
    config = probe_config(linear_lr=0.3, linear_epochs=12)
    judged = judge(train, val, 8, config, CPU)
    published = judged.probes.published
    assert published is not None
    curve = linear_curve(train, val, 8, [0.3], 12, 32, CPU).accuracies
    assert published.linear_top1 == max(row[0][0] for row in curve)
    assert published.linear_top5 == max(row[0][1] for row in curve)
    assert published.linear_top1 > curve[-1][0][0]  # the last is not the best here, so that the choice shows
    assert (published.knn_top1, published.knn_top5) == pytest.approx(brute_force(train, val, 8, 20, 0.1))


def test_published_uses_at_most_a_tenth_of_the_images_as_neighbours() -> None:
    train, val = clouds(100), clouds(60, seed=1)
    published = judge(train, val, 8, probe_config(knn_k=200), CPU).probes.published
    assert published is not None
    assert (published.knn_top1, published.knn_top5) == pytest.approx(brute_force(train, val, 8, 10, 0.1))


@pytest.mark.parametrize("protocol", ["published", "held_out"])
def test_only_the_protocols_asked_for_are_run(protocol: str) -> None:
    judged = judge(clouds(100), clouds(60, seed=1), 8, probe_config(protocols=(protocol,)), CPU)
    assert (judged.probes.published is None) == (protocol == "held_out")
    assert (judged.probes.held_out is None) == (judged.selection is None) == (protocol == "published")


def test_held_out_chooses_on_the_tenth_and_refits_on_everything() -> None:
    train, val = clouds(400), clouds(2000, seed=1)  # many, so that other weights give another figure
    config = probe_config()
    judged = judge(train, val, 8, config, CPU)
    figures, selection = judged.probes.held_out, judged.selection
    assert figures is not None and selection is not None
    fit_index, held_index = held_out_split(train.labels, 0.1, 0)
    fit, held = train.take(fit_index), train.take(held_index)

    curve = linear_curve(fit, held, 8, config.held_out_lrs, 6, 32, CPU).accuracies
    best = max(top1 for row in curve for top1, _ in row)
    assert selection.linear_top1 == best
    rate = config.held_out_lrs.index(selection.linear_lr)
    assert curve[selection.linear_epoch - 1][rate][0] == best
    refit = linear_curve(train, val, 8, [selection.linear_lr], selection.linear_epoch, 32, CPU)
    assert (figures.linear_top1, figures.linear_top5) == refit.accuracies[-1][0]
    on_the_rest = linear_curve(fit, val, 8, [selection.linear_lr], selection.linear_epoch, 32, CPU)
    assert refit.accuracies[-1] != on_the_rest.accuracies[-1]

    on_held = {k: brute_force(fit, held, 8, k, 0.1)[0] for k in (3, 10, 36)}  # 36 = a tenth of the 360 fitted on
    assert selection.knn_top1 == pytest.approx(max(on_held.values()))
    assert selection.knn_k == min(k for k in on_held if on_held[k] == pytest.approx(selection.knn_top1))
    expected = brute_force(train, val, 8, selection.knn_k, 0.1)
    assert (figures.knn_top1, figures.knn_top5) == pytest.approx(expected)
    assert selection_knn(train, 8, config, CPU) == selection.knn_top1


def test_held_out_touches_the_validation_set_once(monkeypatch: pytest.MonkeyPatch) -> None:
    train, val = clouds(400), clouds(100, seed=1)
    linear_uses, knn_uses = [], []
    linear_judge, knn_vote = linear._judge, evaluate.knn_accuracies

    def counting_judge(judging: Features, *rest: Any) -> Any:
        linear_uses.append(judging is val)
        return linear_judge(judging, *rest)

    def counting_vote(bank: Features, queries: Features, classes: int, ks: Any, *rest: Any) -> Any:
        knn_uses.extend([queries is val] * len(ks))
        return knn_vote(bank, queries, classes, ks, *rest)

    monkeypatch.setattr(linear, "_judge", counting_judge)
    monkeypatch.setattr(evaluate, "knn_accuracies", counting_vote)
    judge(train, val, 8, probe_config(protocols=("held_out",)), CPU)
    assert linear_uses == [False] * 6 + [True]
    assert knn_uses == [False] * 3 + [True]


def test_the_choice_does_not_depend_on_the_validation_set() -> None:
    train, config = clouds(400), probe_config(protocols=("held_out",))
    val, other = clouds(100, seed=1), clouds(30, seed=2)
    shuffled = Features(val.values, val.labels.flip(0))
    selections = [judge(train, one, 8, config, CPU).selection for one in (val, other, shuffled)]
    assert selections[0] == selections[1] == selections[2]


@pytest.mark.parametrize("images", [50, 1000, 50_000])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.31, 0.5, 0.98, 1.0])
def test_the_interval_is_wilsons(images: int, share: float) -> None:
    hits = round(share * images)
    exact = binomtest(hits, images).proportion_ci(0.95, method="wilson")
    low, high = wilson(100 * hits / images, images)
    assert (low, high) == pytest.approx((100 * exact.low, 100 * exact.high), abs=1e-4)


# --- Diagnostics --------------------------------------------------------------------------------------------------


def normal(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_rankme_is_the_entropy_of_the_singular_values() -> None:
    values = normal(60, 20) * torch.logspace(0, -3, 20, dtype=torch.float64)
    singular = np.linalg.svd(values.numpy(), compute_uv=False)
    share = singular / singular.sum() + 1e-7  # the paper's ε
    assert rankme(values) == pytest.approx(math.exp(-(share * np.log(share)).sum()), rel=1e-9)
    assert rankme(values.float()) == pytest.approx(rankme(values), rel=1e-4)


def test_rankme_counts_directions() -> None:
    orthonormal = torch.linalg.qr(normal(64, 16)).Q
    assert rankme(orthonormal) == pytest.approx(16, rel=1e-4)
    assert rankme(1000 * orthonormal) == pytest.approx(rankme(orthonormal), rel=1e-9)
    assert rankme(orthonormal[:, :5] @ normal(5, 16)) < 5.001
    assert rankme(normal(64, 1) @ normal(1, 16, seed=1)) == pytest.approx(1, abs=1e-3)
    assert rankme(torch.ones(64, 2048)) == pytest.approx(1, abs=0.01)
    assert rankme(torch.linalg.qr(normal(16, 8)).Q.T) == pytest.approx(8, rel=1e-4)  # fewer images than channels


def test_feature_std_is_0_for_equal_and_1_for_spread_directions() -> None:
    assert feature_std(torch.full((50, 8), 3.0)) == pytest.approx(0, abs=1e-9)
    assert feature_std(torch.cat([torch.eye(8), -torch.eye(8)])) == pytest.approx(1)
    assert feature_std(normal(2000, 64)) == pytest.approx(1, abs=0.01)
    half = math.radians(30)  # two directions 60° apart: each lies sin 30° from their mean
    pair = torch.tensor([[math.cos(half), math.sin(half)], [math.cos(half), -math.sin(half)]])
    assert feature_std(pair) == pytest.approx(math.sin(half), abs=1e-6)
    assert feature_std(pair * torch.tensor([[3.0], [0.2]])) == pytest.approx(math.sin(half), abs=1e-6)


@pytest.mark.parametrize("values", [normal(200, 32), normal(200, 32).relu(), normal(200, 32).abs() + 1])
def test_healthy_features_have_no_evidence_of_collapse(values: Tensor) -> None:
    found = diagnose(values.float())
    assert found.collapse_evidence is None
    assert found.feature_dim == 32 and 1 < found.rankme <= 32 and 0 < found.feature_std <= 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (torch.ones(200, 32), "of their mean"),
        (torch.zeros(200, 32), "of their mean"),
        (torch.ones(200, 32) + 1e-3 * normal(200, 32).float(), "of their mean"),
        (torch.ones(200, 1) @ normal(1, 32).float(), "of their mean"),
        ((normal(200, 1).sign() @ normal(1, 32, seed=1)).float(), "RankMe is 1"),
    ],
)
def test_collapsed_features_say_so(values: Tensor, words: str) -> None:
    evidence = diagnose(values).collapse_evidence
    assert evidence is not None and words in evidence and "collapsed below" in evidence


def test_features_that_are_not_finite_are_reported_with_their_share() -> None:
    values = torch.ones(10, 10)
    values[0, 0], values[3, 2] = float("nan"), float("inf")
    found = diagnose(values)
    assert found.collapse_evidence == "2 % of the feature values are not finite"
    assert (found.rankme, found.feature_std) == (0.0, 0.0)


# --- Features -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def config() -> PretrainConfig:
    """A little run on embedded images of 16 px."""
    return load_config(
        "smoke",
        overrides=[
            "image_size=32",
            "train_images=160",
            "val_images=48",
            "feature_batch_size=64",
            "linear_epochs=3",
            "linear_batch_size=32",
            "workers=0",
            "online_images=100",
            "device=cpu",
            "resident=always",
        ],
    )


@pytest.fixture(scope="module")
def images(config: PretrainConfig) -> DataSet:
    return open_data(config.data)


class Pool(nn.Module):
    """A frozen random map with a batch norm, images [B, 3, S, S] → [B, 24, S/8, S/8]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 24, 8, 8), nn.BatchNorm2d(24), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


def test_features_are_the_pooled_map_of_the_network_in_eval_mode(config: PretrainConfig, images: DataSet) -> None:
    network = Pool().train()
    network.layers[1].running_mean += 0.1  # type: ignore[operator]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    pixels = torch.stack([images.val.load(i) for i in range(8)])
    found = encoder_embed(network, config, CPU)(pixels)
    assert network.training and all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    network.eval()
    with torch.no_grad():
        expected = network(Normalizer(config.data, CPU)(pixels)).mean((2, 3))
    assert found.dtype == torch.float32 and found.shape == (8, 24)
    assert (found - expected).abs().max().item() < 1e-6


@pytest.mark.parametrize(("size", "side"), [(16, 16), (32, 32), (64, 32)])
def test_pixel_features_are_normalised_and_at_most_32_pixels_a_side(
    config: PretrainConfig, size: int, side: int
) -> None:
    pixels = torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8)
    found = pixel_embed(config)(pixels)
    assert found.shape == (3, 3 * side * side)
    blocks = pixels.double().view(3, 3, side, size // side, side, size // side).mean((3, 5)) / 255
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (config.data.mean, config.data.std))
    assert (found - ((blocks - mean) / std).flatten(1)).abs().max().item() < 1e-5


def test_extraction_keeps_the_order_and_calls_before_every_batch(
    config: PretrainConfig, images: DataSet, tmp_path: Path
) -> None:
    calls: list[int] = []
    found = extract(pixel_embed(config), images.train, config, tmp_path, lambda: calls.append(1))
    assert torch.equal(found.labels, images.train.labels)
    assert found.values.shape == (160, 3072) and len(calls) == 3  # 160 images in batches of 64
    assert torch.equal(found.values[70:71], pixel_embed(config)(images.train.load(70)[None]))


class Holes:
    """The images of a source of which some cannot be read."""

    def __init__(self, source: ResidentSource, unreadable: set[int]) -> None:
        self._source, self._unreadable = source, unreadable
        self.labels, self.class_names = source.labels, source.class_names

    def load(self, index: int) -> Tensor:
        if index in self._unreadable:
            raise ImageError(f"{self.name(index)} cannot be decoded (a test)")
        return self._source.load(index)

    def name(self, index: int) -> str:
        return f"image {index}"

    def fingerprint(self) -> str:
        return "holes"


def skipping(config: PretrainConfig) -> PretrainConfig:
    return config.model_copy(update={"data": config.data.model_copy(update={"on_error": "skip"})})


def test_unreadable_images_leave_features_and_labels_in_step(
    config: PretrainConfig, images: DataSet, tmp_path: Path
) -> None:
    assert isinstance(images.val, ResidentSource)
    lost = {0, 5, 17, 47}
    kept = [i for i in range(48) if i not in lost]
    few = skipping(config).model_copy(update={"probe": config.probe.model_copy(update={"feature_batch_size": 7})})
    found = extract(pixel_embed(config), Holes(images.val, lost), few, tmp_path)
    whole = extract(pixel_embed(config), images.val, config, tmp_path)
    assert torch.equal(found.values, whole.values[kept])
    assert torch.equal(found.labels, whole.labels[kept])
    assert [name.split(" cannot")[0] for name in found.skipped] == [f"image {i}" for i in sorted(lost)]


def test_a_set_without_a_readable_image_is_an_error_that_says_so(
    config: PretrainConfig, images: DataSet, tmp_path: Path
) -> None:
    assert isinstance(images.val, ResidentSource)
    with pytest.raises(RunError, match="no image"):
        extract(pixel_embed(config), Holes(images.val, set(range(48))), skipping(config), tmp_path)


def test_features_in_a_file_give_the_figures_of_features_in_memory(
    config: PretrainConfig, images: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Pool()
    in_memory = assess(network, config, images, CPU, tmp_path)
    mapped: list[str] = []
    from_file = torch.from_file

    def counting(name: str, **settings: Any) -> Tensor:
        mapped.append(name)
        return from_file(name, **settings)

    monkeypatch.setattr(torch, "from_file", counting)
    monkeypatch.setattr(features, "_MOST_BYTES_IN_MEMORY", 1000)
    in_file = assess(network, config, images, CPU, tmp_path)
    assert len(mapped) == 12 and all(Path(name).is_relative_to(tmp_path) for name in mapped)
    assert in_file == in_memory
    assert list(tmp_path.iterdir()) == []


def test_the_scratch_folder_is_removed_when_something_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stop"), scratch_folder(tmp_path) as folder:
        (folder / "features-x").write_bytes(b"x")
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


# --- Everything together ------------------------------------------------------------------------------------------


def test_an_assessment_holds_every_figure_asked_for(config: PretrainConfig, images: DataSet, tmp_path: Path) -> None:
    said: list[str] = []
    found = assess(Pool(), config, images, CPU, tmp_path, say=said.append)
    for probes in (found.probes, found.floors.untrained, found.floors.pixels):
        assert probes is not None
        for figures in (probes.published, probes.held_out):
            assert figures is not None
            for value in figures.model_dump().values():
                assert 0 <= value <= 100
    assert found.selection is not None and found.selection.linear_lr in config.probe.held_out_lrs
    assert found.diagnostics.feature_dim == 24 and found.skipped == []
    assert len(said) == 3
    without = config.model_copy(update={"probe": config.probe.model_copy(update={"floors": False})})
    again = assess(Pool(), without, images, CPU, tmp_path)
    assert again.floors.untrained is None and again.floors.pixels is None
    one = config.model_copy(update={"probe": config.probe.model_copy(update={"floors": ("untrained",)})})
    bare = assess(Pool(), one, images, CPU, tmp_path)
    assert bare.floors.untrained == found.floors.untrained and bare.floors.pixels is None


class Broken(nn.Module):
    """Every feature is NaN."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.full((x.shape[0], 4, 2, 2), float("nan"))


def test_features_that_are_not_finite_give_no_accuracy_but_evidence(
    config: PretrainConfig, images: DataSet, tmp_path: Path
) -> None:
    without = config.model_copy(update={"probe": config.probe.model_copy(update={"floors": False})})
    found = assess(Broken(), without, images, CPU, tmp_path)
    assert found.probes == Probes() and found.selection is None
    assert found.diagnostics.collapse_evidence == "100 % of the feature values are not finite"
    assert glance(Broken(), config, images, CPU, tmp_path) == (0.0, 0.0, 0.0)


class Untouchable:
    """A validation set that must not be looked at."""

    labels = torch.arange(2)
    class_names = ("a", "b")

    def load(self, index: int) -> Tensor:
        raise AssertionError("the validation set was touched")

    name = fingerprint = load  # type: ignore[assignment]


def test_a_glance_sees_some_training_images_and_never_validation(
    config: PretrainConfig, images: DataSet, tmp_path: Path
) -> None:
    network = Pool()
    blind = DataSet(images.train, Untouchable(), "x", "x")  # type: ignore[arg-type]
    found = glance(network, config, blind, CPU, tmp_path)
    from cnnjepa.data.source import Subset, stratified

    few = Subset(images.train, stratified(images.train.labels, 100))
    values = extract(encoder_embed(network, config, CPU), few, config, tmp_path)
    assert values.labels.numel() == 100
    assert found.knn_top1 == selection_knn(values, images.classes, config.probe, CPU)
    assert found.rankme == rankme(values.values) and found.feature_std == feature_std(values.values)


def test_the_untrained_floor_has_the_first_weights_and_calibrated_statistics(
    config: PretrainConfig, images: DataSet
) -> None:
    few = DataSet(images.val, images.val, "x", "x")  # 48 images: one batch
    network = untrained_encoder(config, few, CPU)
    fresh = build_backbone(config.encoder, config.runtime.seed)
    assert not network.training
    for (name, one), (_, other) in zip(network.named_parameters(), fresh.named_parameters(), strict=True):
        assert torch.equal(one, other), name
    pixels = torch.stack([images.val.load(i) for i in range(48)])
    with torch.no_grad():
        maps = fresh.conv1(Normalizer(config.data, CPU)(pixels))
    norm: Any = network.bn1
    assert (norm.running_mean - maps.mean((0, 2, 3))).abs().max().item() < 1e-5
    assert (norm.running_var / maps.var((0, 2, 3), unbiased=True) - 1).abs().max().item() < 1e-4


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_an_untrained_floor_is_of_the_runs_seed(seed: int) -> None:
    encoder = load_config("smoke").encoder
    one, two = build_backbone(encoder, seed), build_backbone(encoder, seed)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.conv1.weight, build_backbone(encoder, seed + 1).conv1.weight)


def test_a_set_sorted_by_class_is_probed_as_well_as_a_shuffled_one() -> None:
    """Folders come class by class; a probe in that order would see one class a batch."""
    train, val = clouds(800), clouds(400, seed=1)
    by_class = train.labels.argsort(stable=True)
    scores = [
        max(row[0][0] for row in linear_curve(features, val, 8, [0.01], 10, 64, CPU).accuracies)
        for features in (train, train.take(by_class))
    ]
    assert abs(scores[0] - scores[1]) < 5
