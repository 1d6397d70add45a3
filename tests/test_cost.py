"""Parameters and FLOPs against the authors' figures, torchvision's published ones, and counted real steps."""

from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cnnjepa.masks import sample_masks
from cnnjepa.measuring.cost import MethodCost, method_cost
from cnnjepa.methods import build_method
from cnnjepa.methods.predictor import Predictor
from cnnjepa.schemas import EncoderConfig, PredictorConfig, PretrainConfig, load_config

STOCK = {
    "resnet18": torchvision.models.ResNet18_Weights.IMAGENET1K_V1,
    "resnet34": torchvision.models.ResNet34_Weights.IMAGENET1K_V1,
    "resnet50": torchvision.models.ResNet50_Weights.IMAGENET1K_V1,
    "resnet101": torchvision.models.ResNet101_Weights.IMAGENET1K_V1,
    "resnet152": torchvision.models.ResNet152_Weights.IMAGENET1K_V1,
    "wide_resnet50_2": torchvision.models.Wide_ResNet50_2_Weights.IMAGENET1K_V1,
    "resnext50_32x4d": torchvision.models.ResNeXt50_32X4D_Weights.IMAGENET1K_V1,
}
"""Only the figures that torchvision publishes with its weights are read; nothing is downloaded."""


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def predictor(**settings: Any) -> nn.Module:
    with torch.device("meta"):
        return Predictor(2048, PredictorConfig(**settings))


def priced(config: PretrainConfig) -> MethodCost:
    """The cost of a method that exists on the meta device only."""
    with torch.device("meta"):
        method = build_method(config)
    return method_cost(config, method)


# --- Parameters ---------------------------------------------------------------------------------------------------


def test_the_default_predictor_of_resnet50_has_the_measured_number_of_parameters() -> None:
    assert parameters(predictor(depth=3)) == 12_662_784  # docs/sources.md#predictor-layers; without the token


@pytest.mark.parametrize(("depth", "millions"), [(1, 4.2), (2, 8.4), (3, 12.7), (4, 16.9), (5, 21.1), (6, 25.3)])
def test_predictor_parameters_by_depth_are_the_papers(depth: int, millions: float) -> None:
    assert round(parameters(predictor(depth=depth)) / 1e6, 1) == millions
    assert parameters(predictor(depth=depth)) == depth * parameters(predictor(depth=1))


@pytest.mark.parametrize(("kernel", "millions"), [(3, 12.7), (5, 12.8), (7, 12.9), (9, 13.1)])
def test_predictor_parameters_by_kernel_are_the_papers(kernel: int, millions: float) -> None:
    assert round(parameters(predictor(kernel_size=kernel)) / 1e6, 1) == millions


def test_a_predictor_of_dense_convolutions_has_nine_times_the_parameters() -> None:
    assert round(parameters(predictor(conv="dense")) / 1e6) == 113


@pytest.mark.medium
def test_the_cost_counts_the_token_and_the_projection_head_with_the_predictor() -> None:
    config = load_config("in100")
    assert priced(config).predictor_params == 12_662_784 + 2048
    head = load_config("in100", overrides=["projection_dim=512"])
    with torch.device("meta"):
        small = Predictor(512, PredictorConfig())
    assert priced(head).predictor_params == parameters(small) + 512 + (2048 * 512 + 512)
    assert priced(head).encoder_params == priced(config).encoder_params


@pytest.mark.medium
@pytest.mark.parametrize("arch", STOCK)
def test_an_encoder_has_torchvisions_parameters_and_flops_without_the_classifier(arch: Any) -> None:
    meta = STOCK[arch].meta
    config = load_config("in100", overrides=[f"arch={arch}"])
    dim = 512 if arch in ("resnet18", "resnet34") else 2048
    found = priced(config)
    assert found.encoder_params == meta["num_params"] - 1000 * (dim + 1)
    published = meta["_ops"] - 1000 * dim / 1e9  # GMAC at 224 px, to three decimals
    assert found.encoder_flops / 2e9 == pytest.approx(published, abs=1e-3)


def test_resnet50_takes_4_09_giga_multiply_adds_a_forward() -> None:
    assert round(priced(load_config("in100")).encoder_flops / 2e9, 2) == 4.09


@pytest.mark.medium
@pytest.mark.parametrize("width", [0.125, 0.5, 2.0])
def test_width_scales_parameters_about_quadratically(width: float) -> None:
    one, other = (priced(load_config("in100", overrides=[f"width={w}"])) for w in (1.0, width))
    assert other.encoder_params / one.encoder_params == pytest.approx(width**2, rel=0.1)
    assert EncoderConfig(width=width).total_stride == 32


# --- FLOPs --------------------------------------------------------------------------------------------------------

TINY = [
    "strategy=random",
    "ratio=0.6",
    "width=0.125",
    "device=cpu",
    "resident=always",
    "predictor.conv=dense",
]


def counted_step(config: PretrainConfig, batch: int) -> float:
    """FLOPs an image of one real forward and backward, as torch counts them.

    Convolutions and matrix products are counted, by their outputs: neither the halo's copies nor norms,
    activations, pooling and the loss, all of which the formula leaves out too.
    """
    method = build_method(config)
    masks = sample_masks(config.method.masking, config.grid, torch.arange(batch), 0, 0)
    assert masks.context.double().mean().item() == pytest.approx(config.visible_share, abs=1e-12)
    images = torch.randn(batch, *config.image_shape)
    with FlopCounterMode(display=False) as counter:
        method(images, masks.context, masks.target).total.backward()
    return counter.get_total_flops() / batch


@pytest.mark.medium
@pytest.mark.parametrize(
    "overrides",
    [
        ["arch=resnet18", "stem=small", "stages=3", "image_size=32"],
        ["arch=resnet18", "stem=half", "stages=4", "image_size=96"],
        ["arch=resnet18", "stem=half", "stages=4", "image_size=[48,160]"],
        ["arch=resnet50", "stem=imagenet", "stages=4", "image_size=128"],
        ["arch=resnet18", "stem=small", "stages=3", "image_size=32", "projection_dim=16"],
    ],
)
def test_flops_of_a_step_are_those_of_a_real_packed_step(overrides: list[str]) -> None:
    """Exactly: with masking `random` every sample shows the mean share. The predictor is dense because torch 2.14
    counts a depthwise weight gradient as if it were dense (see the next test for the separable one)."""
    config = load_config("smoke", overrides=[*TINY, *overrides])
    assert method_cost(config).flops_per_image == pytest.approx(counted_step(config, batch=3), rel=1e-12)


def test_a_separable_predictor_costs_its_multiply_adds() -> None:
    dense = load_config("smoke", overrides=[*TINY, "predictor.depth=2", "kernel_size=3"])
    separable = load_config("smoke", overrides=[*TINY, "predictor.depth=2", "kernel_size=3", "conv=separable"])
    cells, dim = dense.grid**2, 32  # resnet18, three stages, an eighth of 256 channels
    one, two = method_cost(dense), method_cost(separable)
    per_layer = {"dense": 9 * dim * dim, "separable": 9 * dim + dim * dim}
    saved = 3 * 2 * 2 * cells * (per_layer["dense"] - per_layer["separable"])  # 3 passes, 2 layers, 2 FLOPs
    assert one.flops_per_image - two.flops_per_image == pytest.approx(saved, rel=1e-12)


def test_the_papers_step_costs_one_dense_forward_and_three_visible_ones() -> None:
    """ResNet-50 at 224 px: 2 x 4.09 GMAC for the targets, 52 % of three times that for the context, less the stem's
    input gradient (118 MMAC), and three times the predictor's 0.62 GMAC on 49 cells."""
    found = priced(load_config("in100"))
    share, stem = 0.5226, 64 * 3 * 49 * 112 * 112 / 1e9
    layers = 3 * 49 * 2048 * (9 + 2048) / 1e9
    expected = 4.087 + share * (3 * 4.087 - stem) + 3 * layers
    assert found.flops_per_image / 2e9 == pytest.approx(expected, rel=1e-3)


def test_more_masking_costs_less() -> None:
    costs = [
        method_cost(load_config("smoke", overrides=[*TINY, f"ratio={ratio}"])).flops_per_image
        for ratio in (0.1, 0.5, 0.9)
    ]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] - costs[1] == pytest.approx(costs[1] - costs[2], rel=0.03)  # linear, up to whole cells


def test_counting_computes_and_changes_nothing() -> None:
    config = load_config("smoke", overrides=TINY)
    method = build_method(config)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    state = torch.get_rng_state()
    assert method_cost(config, method) == method_cost(config)
    assert method.training
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert all(p.device.type == "cpu" for p in method.parameters())
    assert torch.equal(torch.get_rng_state(), state)
