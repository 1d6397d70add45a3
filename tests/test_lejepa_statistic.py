"""LeJEPA's statistic against closed forms, and its local views."""

import math

import pytest
import torch
from torch import Tensor

from cnnjepa.methods import build_method
from cnnjepa.methods.lejepa import draw_slices, epps_pulley
from cnnjepa.schemas import ConfigError, load_config


def closed_form(x: Tensor) -> float:
    """N ∫ |φ̂(t) − e^(−t²/2)|² e^(−t²/2) dt over the whole line, by the Gaussian integrals of its three products."""
    n = len(x)
    pairs = torch.exp(-((x[:, None] - x) ** 2) / 2).sum() / n**2
    single = torch.exp(-(x**2) / 4).sum() * math.sqrt(2) / n
    return float(n * math.sqrt(2 * math.pi) * (pairs - single + 1 / math.sqrt(3)))


@pytest.mark.parametrize("spread", [0.1, 1.0, 3.0])
def test_the_statistic_is_epps_and_pulleys(spread: float) -> None:
    x = spread * torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.3
    for column, value in enumerate(epps_pulley(x, 2001).tolist()):
        assert value == pytest.approx(closed_form(x[:, column]), rel=1e-4)
    coarse = epps_pulley(x, 17)
    assert torch.allclose(coarse, epps_pulley(x, 2001), rtol=0.1)
    t = torch.linspace(-5, 5, 17, dtype=torch.float64)  # Algorithm 1 of the paper, over the whole interval
    error = ((1j * x[..., None] * t).exp().mean(0) - torch.exp(-0.5 * t**2)).abs() ** 2 * torch.exp(-0.5 * t**2)
    torch.testing.assert_close(coarse, 40 * torch.trapezoid(error, t, dim=-1))


def test_the_statistic_is_least_for_a_standard_normal_and_sees_collapse() -> None:
    normal = torch.randn(4000, 8, generator=torch.Generator().manual_seed(1))
    values = [float(epps_pulley(x, 17).mean()) for x in (normal, 0.7 * normal, normal + 0.5, torch.zeros_like(normal))]
    assert values[0] < 2 and all(value > 20 * values[0] for value in values[1:])


def test_slices_are_unit_vectors_of_the_step() -> None:
    slices = draw_slices(16, 300, 0, 3)
    assert torch.allclose(slices.norm(dim=0), torch.ones(300))
    assert torch.equal(slices, draw_slices(16, 300, 0, 3)) and not torch.equal(slices, draw_slices(16, 300, 0, 4))
    assert slices.mean().abs() < 0.02


def test_local_views_are_98_of_224_pixels_to_the_nearest_multiple_of_the_stride() -> None:
    def sizes(preset: str, *more: str) -> list[int]:
        return [view.size for view in load_config(preset, overrides=more).views]

    assert sizes("in100-lejepa") == [224] * 2 + [96] * 6
    assert sizes("in100", "method.name=lejepa", "arch=vit_small", "patch_size=14") == [224] * 2 + [98] * 6
    assert sizes("tiny64-lejepa") == [64, 64, 32, 32] and sizes("demo-lejepa") == [32, 32, 16, 16]
    assert sizes("demo-lejepa", "local_size=24", "local_views=1") == [32, 32, 24]
    assert sizes("demo-simclr") == [32, 32]
    with pytest.raises(ConfigError, match=r"method\.local_size 18 must be a multiple .* stride 4 .* value is 16 or 20"):
        load_config("demo-lejepa", overrides=["local_size=18"])
    with pytest.raises(ConfigError, match=r"of at most data\.image_size 32; the nearest valid value is 32"):
        load_config("demo-lejepa", overrides=["local_size=64"])
    with pytest.raises(ConfigError, match="are one view, which has nothing to agree with"):
        load_config("demo-lejepa", overrides=["global_views=1", "local_views=0"])
    with pytest.raises(ConfigError, match="local_size has no effect with local_views 0"):
        load_config("demo-lejepa", overrides=["local_size=16", "local_views=0"])


@pytest.mark.parametrize(
    ("centre", "encoder", "views"),
    [
        ("auto", ("arch=resnet18",), 4),
        ("auto", ("arch=vit_tiny", "patch_size=4", "encoder.blocks=1"), 2),
        ("global", ("arch=resnet18",), 2),
        ("all", ("arch=vit_tiny", "patch_size=4", "encoder.blocks=1"), 4),
    ],
)
def test_the_centre_is_of_the_global_views_for_transformers_and_of_all_for_other_encoders(
    centre: str, encoder: tuple[str, ...], views: int
) -> None:
    sizes = ("hidden_dim=8", "output_dim=4", "global_views=2", "local_views=2")
    fields = [f"method.{text}" for text in (*sizes, f"centre={centre}")]
    method = build_method(load_config("smoke", overrides=["method.name=lejepa", *fields, *encoder]))
    assert method._central == views
