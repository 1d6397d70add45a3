"""CNN-JEPA's loss, token, predictor and EMA against a definition written out here, in float64."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from cnnjepa import CNNJEPA, Predictor
from cnnjepa.encoders import build_backbone
from cnnjepa.methods import build_method
from cnnjepa.methods.cell_loss import cell_loss
from cnnjepa.randomness import key
from cnnjepa.schemas import EMAConfig, EncoderConfig, LossConfig, PredictorConfig, PretrainConfig, load_config
from cnnjepa.sparse import MaskedEncoder, PackedEncoder
from cnnjepa.training.schedule import Schedule

ENCODER = EncoderConfig(arch="resnet18", stem="small", stages=3, width=0.125)


def small_method(**settings: object) -> CNNJEPA:
    config = load_config("smoke", overrides=[f"{k}={v}" for k, v in settings.items()])
    return build_method(config).double()


def masks(batch: int = 3, grid: int = 8) -> tuple[Tensor, Tensor]:
    context = torch.rand(batch, grid, grid, generator=torch.Generator().manual_seed(3)) < 0.5
    return context, ~context


def defined_loss(method: CNNJEPA, images: Tensor, context: Tensor, target: Tensor) -> Tensor:
    """Paper III-A and the authors' code, written out sample by sample and cell by cell."""
    features = MaskedEncoder(method.context_encoder.dense_copy())(images, context)
    filled = features.clone()
    for b, r, c in (~context).nonzero().tolist():
        filled[b, :, r, c] = method.token.detach()
    predicted = copy.deepcopy(method.predictor)(filled)
    with torch.no_grad():
        wanted = copy.deepcopy(method.target_encoder)(images)
    cells = []
    for b, r, c in target.nonzero().tolist():
        p, h = predicted[b, :, r, c], wanted[b, :, r, c]
        d = p / p.norm() - h / h.norm()
        cells.append(torch.where(d.abs() < 1, 0.5 * d * d, d.abs() - 0.5).sum())
    return torch.stack(cells).mean()


def lively(method: CNNJEPA) -> CNNJEPA:
    for module in (method.context_encoder, method.target_encoder):
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                nn.init.uniform_(norm.weight, 0.5, 1.5)
    return method


def test_the_loss_is_the_papers() -> None:
    method = lively(small_method())
    images, (context, target) = torch.randn(3, 3, 32, 32, dtype=torch.float64), masks()
    target[:, 0] = False  # a cell may be neither
    expected = defined_loss(method, images, context, target)
    loss = method(images, context, target)
    assert loss.weight == target.sum()
    assert torch.allclose(loss.mean, expected, rtol=1e-10)


def test_the_public_class_gives_the_loss_for_explicit_masks() -> None:
    backbone = build_backbone(ENCODER, 0)
    model = CNNJEPA(
        PackedEncoder(backbone), Predictor(backbone.feature_dim, PredictorConfig(depth=2)), backbone.feature_dim
    )
    context, target = masks()
    loss = model(torch.randn(3, 3, 32, 32), context, target)
    assert loss.mean.isfinite() and 0 < loss.mean < 2
    loss.mean.backward()
    assert model.token.grad is not None


@pytest.mark.parametrize("name", ["l2", "smooth_l1", "cosine"])
def test_normalised_losses_agree_on_post_relu_features(name: str) -> None:
    prediction, target = torch.rand(2, 16, 4, 4, dtype=torch.float64), torch.rand(2, 16, 4, 4, dtype=torch.float64)
    expected = 1 - nn.functional.cosine_similarity(prediction, target, dim=1)
    assert torch.allclose(cell_loss(prediction, target, LossConfig(name=name)), expected)  # type: ignore[arg-type]


def test_unnormalised_losses_are_their_definitions() -> None:
    prediction, target = torch.randn(2, 5, 3, 3) * 3, torch.randn(2, 5, 3, 3) * 3
    d = prediction - target
    half_squares = cell_loss(prediction, target, LossConfig(name="l2", normalized=False))
    assert torch.allclose(half_squares, (0.5 * d**2).sum(1))
    smooth = cell_loss(prediction, target, LossConfig(name="smooth_l1", normalized=False))
    assert torch.allclose(smooth, torch.where(d.abs() < 1, 0.5 * d**2, d.abs() - 0.5).sum(1))


def test_an_all_zero_cell_gives_a_finite_loss_and_gradient() -> None:
    prediction = torch.zeros(1, 4, 1, 1, requires_grad=True)
    loss = cell_loss(prediction, torch.zeros(1, 4, 1, 1), LossConfig())
    loss.sum().backward()
    assert loss.isfinite().all() and prediction.grad is not None and prediction.grad.isfinite().all()


def test_half_precision_features_are_compared_in_float32() -> None:
    loss = cell_loss(torch.rand(1, 4, 2, 2).bfloat16(), torch.rand(1, 4, 2, 2).bfloat16(), LossConfig())
    assert loss.dtype == torch.float32


def test_the_target_follows_by_parameters_only_and_has_no_gradient() -> None:
    method = lively(small_method())
    before = copy.deepcopy(method.target_encoder.state_dict())
    with torch.no_grad():
        for p in method.context_encoder.parameters():
            p.add_(torch.randn_like(p))
    for buffer in method.context_encoder.buffers():
        buffer.add_(1)
    method.follow(0.9)
    source = dict(method.context_encoder.network.named_parameters())
    for name, value in method.target_encoder.state_dict().items():
        expected = 0.9 * before[name] + 0.1 * source[name] if name in source else before[name]
        assert torch.allclose(value, expected), name
    assert not any(p.requires_grad for p in method.target_encoder.parameters())


def test_the_target_encoder_keeps_running_statistics_of_its_own() -> None:
    method = small_method()
    context, target = masks()
    method.train()
    method(torch.randn(3, 3, 32, 32, dtype=torch.float64), context, target)
    own = method.target_encoder.bn1.running_mean  # type: ignore[union-attr]
    context_mean = method.context_encoder.network.bn1.running_mean  # type: ignore[union-attr]
    assert (own != 0).any() and not torch.equal(own, context_mean)  # type: ignore[union-attr, arg-type, operator]


def test_the_token_is_drawn_as_the_authors_do() -> None:
    token = build_method(load_config("in100")).token
    assert token.shape == (2048,) and token.abs().max() <= 0.02
    assert 0.009 < token.std() < 0.013  # a normal of 0.02 truncated at ±0.02 has 0.0108


def test_every_residual_branch_starts_at_zero_and_convolutions_are_kaiming() -> None:
    backbone = build_backbone(EncoderConfig(arch="resnet50"), seed=0)
    for block in backbone.layer2:
        assert (block.bn3.weight == 0).all() and (block.bn2.weight == 1).all()
    conv = backbone.layer3[1].conv2
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (256 * 9)), rel=0.02)


def test_weights_are_a_function_of_config_and_seed() -> None:
    torch.manual_seed(1)
    first = small_method().state_dict()
    torch.manual_seed(2)
    second, other = small_method().state_dict(), small_method(seed=1).state_dict()
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert not torch.equal(first["predictor.layers.0.1.weight"], other["predictor.layers.0.1.weight"])
    assert key(0, "a", 1) != key(0, "a", 2) != key(0, "b", 2)


@pytest.mark.parametrize(("conv", "kernel"), [("separable", 5), ("dense", 3)])
def test_the_predictor_is_built_as_configured(conv: str, kernel: int) -> None:
    predictor = Predictor(16, PredictorConfig(depth=2, kernel_size=kernel, conv=conv))  # type: ignore[arg-type]
    kinds = [type(m).__name__ for m in predictor.layers[0]]  # type: ignore[arg-type]
    assert kinds == (["Conv2d"] * (2 if conv == "separable" else 1)) + ["BatchNorm2d", "ReLU"]
    out = predictor(torch.randn(2, 16, 6, 6))
    assert out.shape == (2, 16, 6, 6) and (out >= 0).all()


def test_a_projection_head_is_followed_too() -> None:
    method = small_method(projection_dim=24)
    assert method.token.shape == (24,)
    with torch.no_grad():
        method.projection.weight.add_(1)  # type: ignore[union-attr, operator]
    method.follow(0.0)
    assert torch.equal(method.projection.weight, method.target_projection.weight)  # type: ignore[union-attr, arg-type]
    context, target = masks()
    assert method(torch.randn(3, 3, 32, 32, dtype=torch.float64), context, target).mean.isfinite()


def schedule_of(**overrides: object) -> Schedule:
    config: PretrainConfig = load_config("in100", overrides=[f"{k}={v}" for k, v in overrides.items()])
    return Schedule(config, steps_per_epoch=10)


def test_the_learning_rate_warms_up_and_ends_where_the_authors_do() -> None:
    schedule = schedule_of()
    assert schedule.lr(0) == pytest.approx(0.01 / 100)
    assert schedule.lr(99) == pytest.approx(0.01)
    assert schedule.lr(schedule.total_steps - 1) == pytest.approx(0.01 * 0.001)
    rates = [schedule.lr(step) for step in range(99, schedule.total_steps)]
    assert rates == sorted(rates, reverse=True)
    middle = (100 + schedule.total_steps - 1) / 2
    assert schedule.lr(round(middle)) == pytest.approx(0.01 * 1.001 / 2, rel=1e-3)


def test_the_momentum_is_one_throughout_the_last_epoch() -> None:
    schedule = schedule_of()
    assert schedule.momentum(0) == schedule.momentum(9) == pytest.approx(0.996)
    assert {schedule.momentum(schedule.total_steps - 1 - step) for step in range(10)} == {1.0}
    assert schedule.momentum(schedule.total_steps - 11) < 1.0
    per_step = schedule_of(**{"ema.update": "per_step"})
    assert per_step.momentum(0) < per_step.momentum(1) < per_step.momentum(per_step.total_steps - 2) < 1.0
    assert EMAConfig().update == "per_epoch"
