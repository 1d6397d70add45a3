"""RankMe, LiDAR, α-ReQ, the spread of features, and evidence of collapse."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from cnnjepa.probes.diagnostics import alpha_req, diagnose, feature_std, lidar, rankme


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


def with_covariance(eigenvalues: Tensor, rows: int, seed: int = 0) -> Tensor:
    """Rows [rows, D] with mean 0 whose covariance has exactly these eigenvalues, in a random basis."""
    dim = eigenvalues.numel()
    centred = normal(rows, dim, seed)
    orthonormal = torch.linalg.qr(centred - centred.mean(0)).Q
    return (rows**0.5 * orthonormal * eigenvalues.sqrt()) @ torch.linalg.qr(normal(dim, dim, seed + 1)).Q


def lidar_by_definition(values: np.ndarray) -> float:
    """The paper's equations 1 to 3 with an explicit inverse square root."""
    n, q, dim = values.shape
    means = values.mean(1)
    between = np.cov(means.T, bias=True).reshape(dim, dim)
    within = sum(np.outer(v - mean, v - mean) for one, mean in zip(values, means, strict=True) for v in one) / (n * q)
    eigen, vectors = np.linalg.eigh(within + 1e-4 * np.trace(within) / dim * np.eye(dim))
    root = vectors @ np.diag(eigen**-0.5) @ vectors.T
    found = np.linalg.eigvalsh(root @ between @ root).clip(min=0)
    share = found / found.sum() + 1e-7
    return float(np.exp(-(share * np.log(share)).sum()))


@pytest.mark.parametrize(("images", "views", "dim"), [(40, 6, 12), (7, 5, 12), (2, 3, 4)])
def test_lidar_is_that_of_its_equations(images: int, views: int, dim: int) -> None:
    values = (
        normal(images, dim)[:, None] + 0.5 * normal(images * views, dim, 1).view(images, views, dim)
    ) * torch.rand(dim, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert lidar(values) == pytest.approx(lidar_by_definition(values.numpy()), rel=1e-9)
    assert lidar(1e-3 * values) == pytest.approx(lidar(values), rel=1e-9)
    assert lidar(values + 5) == pytest.approx(lidar(values), rel=1e-9)
    assert lidar(values.float()) == pytest.approx(lidar(values), rel=1e-4)


def test_lidar_of_known_covariances_is_the_entropy_of_their_ratios() -> None:
    """Views v and −v around every mean have within-image covariance W; the means have covariance B. Both are diagonal,
    so that the eigenvalues are B / (W + δ)."""
    between, within = torch.tensor([8.0, 4.0, 2.0, 1.0]).double(), torch.tensor([4.0, 1.0, 1.0, 0.5]).double()
    signs = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]).double()  # orthogonal columns
    means = torch.cat([signs, -signs]) * between.sqrt()
    offsets = torch.cat([signs, -signs]) * within.sqrt()
    values = means[:, None] + offsets[None]
    ratio = (between / (within + 1e-4 * within.mean())).numpy()
    share = ratio / ratio.sum()
    assert lidar(values) == pytest.approx(math.exp(-(share * np.log(share)).sum()), rel=1e-4)  # ε is 1e-7
    equal = lidar(signs[:, None] * 3 + offsets[None] / within.sqrt())
    assert equal == pytest.approx(3, rel=1e-4)  # the first column of `signs` is constant


def test_lidar_counts_only_what_distinguishes_images() -> None:
    """Noise in 12 directions raises RankMe, and not LiDAR."""
    informative = torch.cat([normal(200, 4), torch.zeros(200, 12).double()], 1)
    noise = torch.cat([0.1 * normal(200 * 50, 4, 1), 30 * normal(200 * 50, 12, 2)], 1).view(200, 50, 16)
    values = informative[:, None] + noise
    assert rankme(values.flatten(0, 1)) > 12
    assert 3.5 < lidar(values) < 4.1


def test_lidar_of_equal_views_and_of_equal_images() -> None:
    no_spread = torch.linalg.qr(normal(64, 16)).Q
    assert lidar((no_spread - no_spread.mean(0))[:, None].expand(-1, 5, -1)) == pytest.approx(
        lidar_of_covariance(no_spread), rel=1e-6
    )
    assert lidar(torch.ones(10, 5, 16)) == pytest.approx(1, abs=0.01)


def lidar_of_covariance(values: Tensor) -> float:
    share = np.linalg.eigvalsh(np.cov(values.numpy().T))
    share = share / share.sum() + 1e-7
    return float(np.exp(-(share * np.log(share)).sum()))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.5])
@pytest.mark.parametrize("dim", [8, 64, 300])
def test_alpha_of_an_exact_power_law(alpha: float, dim: int) -> None:
    values = with_covariance(torch.arange(1, dim + 1).double() ** -alpha, 400)
    assert alpha_req(values) == pytest.approx(alpha, abs=1e-9)
    assert alpha_req(100 * values + 7) == pytest.approx(alpha, abs=1e-9)
    assert alpha_req(values.float()) == pytest.approx(alpha, abs=1e-4)


def test_alpha_is_numpys_weighted_line_through_ranks_4_to_100() -> None:
    eigenvalues = torch.logspace(0, -3, 150, dtype=torch.float64) * (1 + 0.3 * torch.sin(torch.arange(150).double()))
    eigenvalues = eigenvalues.sort(descending=True).values
    ranks = np.arange(4, 101)
    line = np.polyfit(np.log(ranks), np.log(eigenvalues[3:100].numpy()), 1, w=ranks**-0.5)  # polyfit squares weights
    assert alpha_req(with_covariance(eigenvalues, 400)) == pytest.approx(-line[0], abs=1e-9)


def test_alpha_leaves_out_channels_that_are_always_zero_and_needs_eight_eigenvalues() -> None:
    law = torch.arange(1, 21).double() ** -1.5
    values = with_covariance(law, 100)
    assert alpha_req(torch.cat([values, torch.zeros(100, 30).double()], 1)) == pytest.approx(1.5, abs=1e-9)
    assert alpha_req(normal(9, 20)) is not None and alpha_req(normal(8, 20)) is None  # n images, n - 1 eigenvalues
    assert alpha_req(normal(50, 7)) is None and alpha_req(torch.ones(50, 20)) is None


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
