"""RankMe, the spread of features, and evidence of collapse."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from cnnjepa.probes.diagnostics import diagnose, feature_std, rankme


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
