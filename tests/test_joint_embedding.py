"""SimCLR, BYOL, VICReg and supervised: losses and heads against lightly's, whole steps against their definitions."""

import copy
import math
from typing import Any

import lightly.loss as theirs
import pytest
import torch
import torch.nn.functional as F
from lightly.models.modules import heads as their_heads
from torch import Tensor, nn

from cnnjepa.methods import Method, StepDraw, build_method
from cnnjepa.methods.byol import BYOL, negative_cosines
from cnnjepa.methods.mlp_head import mlp
from cnnjepa.methods.simclr import SimCLR, nt_xent
from cnnjepa.methods.supervised import Supervised
from cnnjepa.methods.vicreg import VICReg, vicreg_terms
from cnnjepa.schemas import PretrainConfig, load_config
from cnnjepa.training.distributed import Processes
from cnnjepa.training.optimizer import build_optimizer
from cnnjepa.training.schedule import Schedule
from cnnjepa.training.step import train_step

SMALL = ("hidden_dim=24", "output_dim=16")


def asked(name: str, *overrides: str) -> PretrainConfig:
    heads = () if name == "supervised" else tuple(f"method.{text}" for text in SMALL)
    more = ("predictor_hidden_dim=20",) if name == "byol" else ()
    return load_config("smoke", overrides=[f"method.name={name}", *heads, *more, "runtime.batch_size=6", *overrides])


def projections(rows: int = 7, width: int = 12) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(4)
    first = torch.randn(rows, width, generator=g, dtype=torch.float64)
    return first, first + 0.5 * torch.randn(rows, width, generator=g, dtype=torch.float64)


# --- Losses -------------------------------------------------------------------------------------------------------


def defined_nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Equation 1 of the SimCLR paper, pair by pair; mean over all 2 N views."""
    z = torch.cat([first, second])
    n, total = first.shape[0], z.new_zeros(())
    similar = lambda i, j: torch.dot(z[i], z[j]) / (z[i].norm() * z[j].norm())  # noqa: E731
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        others = sum(torch.exp(similar(i, k) / temperature) for k in range(2 * n) if k != i)
        total = total - torch.log(torch.exp(similar(i, j) / temperature) / others)
    return total / (2 * n)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_nt_xent_is_its_definition_and_lightlys(temperature: float) -> None:
    first, second = projections()
    ours = nt_xent(first, second, temperature) / 7
    assert torch.allclose(ours, defined_nt_xent(first, second, temperature), rtol=1e-12)
    assert torch.allclose(ours, theirs.NTXentLoss(temperature)(first, second), rtol=1e-6)


def test_byols_loss_is_lightlys_negative_cosine() -> None:
    first, second = projections()
    ours = negative_cosines(first, second).mean()
    assert torch.allclose(ours, -F.cosine_similarity(first, second).mean(), rtol=1e-12)
    assert torch.allclose(ours, theirs.NegativeCosineSimilarity()(first, second), rtol=1e-6)
    first.requires_grad_(), second.requires_grad_()
    negative_cosines(first, second).sum().backward()
    assert first.grad is not None and second.grad is None


def defined_vicreg(first: Tensor, second: Tensor, weights: tuple[float, float, float]) -> Tensor:
    """Equations 1 to 6 of the VICReg paper, output by output, with the mean over outputs in the first term."""
    n, d = first.shape
    invariance = sum(((first[i] - second[i]) ** 2).sum() for i in range(n)) / (n * d)
    variance = covariance = torch.zeros((), dtype=torch.float64)
    for z in (first, second):
        variance = variance + sum(torch.relu(1 - torch.sqrt(z[:, j].var() + 1e-4)) for j in range(d)) / d / 2
        c = torch.cov(z.T)
        covariance = covariance + sum(c[i, j] ** 2 for i in range(d) for j in range(d) if i != j) / d
    return weights[0] * invariance + weights[1] * variance + weights[2] * covariance


def test_vicregs_terms_are_their_definitions_and_lightlys() -> None:
    first, second = projections()
    first, second = 0.5 * first, 0.7 * second  # so that some standard deviations are below 1
    terms = vicreg_terms(first, second)
    ours = 25 * terms.invariance + 25 * terms.variance + terms.covariance
    assert torch.allclose(ours, defined_vicreg(first, second, (25, 25, 1)), rtol=1e-12)
    assert torch.allclose(ours, theirs.VICRegLoss()(first, second), rtol=1e-6)


def test_losses_are_not_computed_in_half_precision() -> None:
    first, second = (z.bfloat16() for z in projections())
    for loss in (nt_xent(first, second, 0.1), negative_cosines(first, second), *vicreg_terms(first, second)):
        assert loss.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(nt_xent(first, second, 0.1), nt_xent(first.float(), second.float(), 0.1))


# --- Heads --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "other"),
    [
        (mlp(32, 32, 16, norm_last=True), their_heads.SimCLRProjectionHead(32, 32, 16)),
        (mlp(32, 24, 16), their_heads.BYOLProjectionHead(32, 24, 16)),
        (mlp(16, 24, 16), their_heads.BYOLPredictionHead(16, 24, 16)),
        (mlp(32, 48, 48, 48), their_heads.VICRegProjectionHead(32, 48, 48)),
    ],
    ids=["simclr", "byol projector", "byol predictor", "vicreg"],
)
def test_heads_are_lightlys(ours: nn.Module, other: nn.Module) -> None:
    values = list(other.state_dict().values())
    assert [v.shape for v in ours.state_dict().values()] == [v.shape for v in values]
    ours.load_state_dict(dict(zip(ours.state_dict(), values, strict=True)))
    width = next(p for p in ours.parameters()).shape[1]
    x = torch.randn(5, width)
    torch.testing.assert_close(ours(x), other(x))


def test_in1k_presets_heads_have_the_stated_widths() -> None:
    def widths(module: nn.Module) -> list[tuple[int, int]]:
        return [(m.in_features, m.out_features) for m in module.modules() if isinstance(m, nn.Linear)]

    with torch.device("meta"):
        simclr, byol, vicreg = (
            build_method(load_config("in1k", overrides=[f"method.name={n}"])) for n in ("simclr", "byol", "vicreg")
        )
    assert widths(simclr.projector) == [(2048, 2048), (2048, 128)]  # type: ignore[arg-type]
    assert widths(byol.projector) == [(2048, 4096), (4096, 256)]  # type: ignore[arg-type]
    assert widths(byol.predictor) == [(256, 4096), (4096, 256)]  # type: ignore[arg-type]
    assert widths(vicreg.projector) == [(2048, 8192), (8192, 8192), (8192, 8192)]  # type: ignore[arg-type]
    for method in (simclr, byol, vicreg):
        for module in method.modules():
            if isinstance(module, nn.Sequential):
                for linear, norm in zip(module, list(module)[1:], strict=False):
                    if isinstance(linear, nn.Linear) and isinstance(norm, nn.BatchNorm1d):
                        assert linear.bias is None


# --- Whole steps --------------------------------------------------------------------------------------------------


def defined_loss(method: Method, views: tuple[Tensor, ...], labels: Tensor) -> Tensor:
    """The loss of a batch written out from the papers, on networks that are copies of the method's."""
    mean = lambda features: features.mean((2, 3))  # noqa: E731
    if isinstance(method, Supervised):
        logits = method.classifier(mean(method.context_encoder(views[0])))
        return torch.stack([-torch.log_softmax(row, 0)[y] for row, y in zip(logits, labels, strict=True)]).mean()
    if isinstance(method, BYOL):
        online = [method.predictor(method.projector(mean(method.context_encoder(v)))) for v in views]
        with torch.no_grad():
            target = [method.target_projector(mean(method.target_encoder(v))) for v in views]
        pairs = [(online[0], target[1]), (online[1], target[0])]
        return sum(-(F.cosine_similarity(p, t)).mean() for p, t in pairs) / 2  # type: ignore[return-value]
    assert isinstance(method, SimCLR | VICReg)
    z = method.projector(mean(method.context_encoder(torch.cat(views))))
    first, second = z[: len(labels)], z[len(labels) :]
    return (
        defined_nt_xent(first, second, 0.1)
        if isinstance(method, SimCLR)
        else defined_vicreg(first, second, (25, 25, 1))
    )


def defined_update(
    p: Tensor, grad: Tensor, name: str, config: PretrainConfig, velocity: Tensor | None, lr: float
) -> tuple[Tensor, Tensor]:
    """One LARS step of one parameter (equation 6 of arXiv 1708.03888): (new value, new velocity)."""
    decay = 0.0 if any(word in name for word in ("bias", "bn", "norm")) else config.optimizer.weight_decay
    if decay and p.norm() > 0 and grad.norm() > 0:
        grad = 0.001 * p.norm() / (grad.norm() + decay * p.norm()) * (grad + decay * p)
    velocity = grad if velocity is None else 0.9 * velocity + grad
    return p - lr * velocity, velocity


@pytest.mark.parametrize("name", ["simclr", "byol", "vicreg", "supervised"])
def test_two_whole_steps_are_those_of_the_definition(name: str) -> None:
    """Loss, gradients, LARS update and moving average, float64: the loop's values against a computation by hand."""
    config = asked(name, "optimizer.name=lars", "optimizer.lr=0.7", "weight_decay=1e-2", "warmup_epochs=0.5")
    method = build_method(config, classes=5).double().train()
    with torch.no_grad():  # residual branches begin at zero, where half of all gradients vanish
        for module in method.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
    hand = copy.deepcopy(method)
    optimizer, schedule = build_optimizer(method, config.optimizer), Schedule(config, steps_per_epoch=3)
    velocities: dict[str, Tensor | None] = {}
    g = torch.Generator().manual_seed(0)
    for step in range(2):
        views = tuple(torch.randn(6, 3, 32, 32, generator=g, dtype=torch.float64) for _ in config.method.views)
        labels = torch.tensor([0, 1, 2, 3, 4, 0])
        inputs = method.inputs(views, labels, StepDraw(config.grid, torch.arange(6), 0, step))
        schedule.set_rates(optimizer, step)
        momentum = schedule.momentum(step)
        if momentum is not None:
            method.follow(momentum)
            sources = dict(hand.named_parameters())
            with torch.no_grad():
                for key, p in hand.named_parameters():
                    if key.startswith("target_encoder."):
                        p.copy_(momentum * p + (1 - momentum) * sources[key.replace("target_", "context_")])
                    if key.startswith("target_projector."):
                        p.copy_(momentum * p + (1 - momentum) * sources[key.replace("target_", "")])
        loss = train_step(method, optimizer, inputs, config, Processes(0, 1, torch.device("cpu"))).loss

        expected = defined_loss(hand, views, labels)
        expected.backward()
        assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-6)  # the loss is summed in float32
        lr = 0.7 * (step + 1) / 2 if step < 2 else math.nan
        for key, p in hand.named_parameters():
            if not p.requires_grad:
                assert p.grad is None
                continue
            assert p.grad is not None
            new, velocities[key] = defined_update(p.detach(), p.grad, key, config, velocities.get(key), lr)
            p.data, p.grad = new, None
        ours = dict(method.named_parameters())
        for key, p in hand.named_parameters():
            torch.testing.assert_close(ours[key], p, rtol=1e-7, atol=1e-9, msg=lambda text, key=key: f"{key}: {text}")


def test_batch_norms_of_targets_are_in_training_mode_and_keep_their_own_statistics() -> None:
    method = build_method(asked("byol")).train()
    method(torch.randn(6, 3, 32, 32), torch.randn(6, 3, 32, 32))
    assert (method.target_encoder.bn1.running_mean != 0).any()  # type: ignore[union-attr, operator]
    before = method.target_projector[1].running_mean.clone()  # type: ignore[index, union-attr]
    method.follow(0.0)
    assert torch.equal(before, method.target_projector[1].running_mean)  # type: ignore[index, union-attr]
    assert torch.equal(method.target_projector[0].weight, method.projector[0].weight)  # type: ignore[index, union-attr]


def test_the_probed_encoder_is_the_online_one() -> None:
    for name in ("simclr", "byol", "vicreg", "supervised", "random_init"):
        config = load_config("smoke", overrides=[f"method.name={name}"])
        method = build_method(config)
        assert method.probed_encoder(config.probed_encoder) is method.context_encoder


@pytest.mark.parametrize("name", ["simclr", "byol", "vicreg", "supervised"])
def test_flops_are_those_of_a_real_step(name: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    from cnnjepa.measuring.cost import method_cost

    config = asked(name)
    method = build_method(config)
    views = tuple(torch.randn(6, 3, 32, 32) for _ in config.method.views)
    inputs = method.inputs(views, torch.zeros(6, dtype=torch.int64), StepDraw(8, torch.arange(6), 0, 0))
    with FlopCounterMode(display=False) as counter:
        method(*inputs).total.backward()
    counted = counter.get_total_flops() / 6
    # The loss's own products, between views and between outputs, are left out.
    assert method_cost(config, method).flops_per_image == pytest.approx(counted, rel=1e-3)


def lars_names(config: Any) -> set[str]:
    optimizer = build_optimizer(method := build_method(config), config.optimizer)
    held = {id(p) for p in optimizer.param_groups[1]["params"]}
    assert optimizer.param_groups[1]["weight_decay"] == 0.0
    return {name for name, p in method.named_parameters() if id(p) in held}


def test_lars_excludes_by_name_as_the_authors_do() -> None:
    config = load_config("in1k", overrides=["method.name=simclr", "optimizer.name=lars", "arch=resnet18"])
    excluded = lars_names(config)
    assert "context_encoder.bn1.weight" in excluded and "context_encoder.layer2.0.bn2.bias" in excluded
    assert "projector.1.bias" in excluded and "context_encoder.layer2.0.downsample.1.bias" in excluded
    assert "context_encoder.layer2.0.downsample.1.weight" not in excluded and "projector.1.weight" not in excluded
    assert not any(name.endswith("conv1.weight") for name in excluded)


def test_lars_is_lightlys() -> None:
    from lightly.utils.lars import LARS as TheirLARS  # noqa: N811

    from cnnjepa.training.lars import LARS

    torch.manual_seed(0)
    start = [torch.randn(4, 3), torch.zeros(5), torch.randn(5), torch.randn(2, 2)]
    ours, other = ([nn.Parameter(p.clone()) for p in start] for _ in range(2))
    mine = LARS([{"params": ours[:2]}, {"params": ours[2:], "weight_decay": 0.0}], lr=0.5, weight_decay=1e-2)
    reference = TheirLARS(
        [{"params": other[:2]}, {"params": other[2:], "weight_decay": 0.0}], lr=0.5, weight_decay=1e-2, momentum=0.9
    )
    for step in range(5):
        for p, q in zip(ours, other, strict=True):
            p.grad = torch.randn_like(p) if step else torch.zeros_like(p)
            q.grad = p.grad.clone()
        mine.step()
        reference.step()
        for p, q in zip(ours, other, strict=True):
            torch.testing.assert_close(p, q)


def test_schedules_are_lightlys() -> None:
    from lightly.utils.scheduler import CosineWarmupScheduler, cosine_schedule

    asked_for = ["method.name=byol", "warmup_epochs=2", "epochs=10", "optimizer.name=lars", "weight_decay_end=1e-5"]
    schedule = Schedule(load_config("in1k", overrides=[*asked_for, "final_lr_factor=0.001"]), steps_per_epoch=7)
    total = schedule.total_steps
    reference = CosineWarmupScheduler(
        torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0), warmup_epochs=14, max_epochs=total, end_value=0.001
    )
    peak = schedule.config.optimizer.lr
    for step in range(total):
        assert schedule.lr(step) / peak == pytest.approx(reference.scale_lr(step), rel=0.03)
        assert schedule.momentum(step) == pytest.approx(cosine_schedule(step, total, 0.99, 1.0), rel=1e-6)
        assert schedule.weight_decay(step) == pytest.approx(cosine_schedule(step, total, 1e-6, 1e-5), rel=1e-6)
