"""The k-NN probe is the brute-force vote.

Shapes: N bank features, Q queries, D channels, C classes.
"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from probe_features import CPU, brute_force, clouds

from cnnjepa.probes import knn
from cnnjepa.probes.features import Features
from cnnjepa.probes.knn import knn_accuracies, topk_percent, usable_k


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
