"""Whole steps of I-JEPA, SparK and LeJEPA against their definitions, in float64."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from masked_method_configs import asked
from torch import Tensor, nn

from cnnjepa.encoders.vit import positions
from cnnjepa.methods import StepDraw, build_method
from cnnjepa.methods.ijepa import IJEPA
from cnnjepa.methods.lejepa import LeJEPA
from cnnjepa.methods.spark import SparK, normalised_patches, patch_pixels
from cnnjepa.schemas import ConfigError, IJEPAConfig, PretrainConfig, load_config
from cnnjepa.schemas.extent import Extent, height_width
from cnnjepa.sparse import MaskedEncoder
from cnnjepa.training.distributed import Processes
from cnnjepa.training.optimizer import build_optimizer
from cnnjepa.training.schedule import Schedule
from cnnjepa.training.step import train_step


def test_encoders_that_a_method_cannot_use_are_refused_with_those_it_can() -> None:
    with pytest.raises(ConfigError, match="only transformers have; must be one of vit_tiny, vit_small, vit_base"):
        load_config("demo", overrides=["method.name=ijepa"])
    for name in ("cnnjepa", "spark"):
        with pytest.raises(
            ConfigError, match=f"method {name} hides patches of convolutional networks; must be .* resnet50"
        ):
            load_config("demo", overrides=[f"method.name={name}", "arch=vit_small"])
    with pytest.raises(ConfigError, match=r"method spark takes a map after every stage.* must be one of resnet18"):
        own = ("arch=custom", "encoder.module=mine:Net", "encoder.total_stride=8")
        load_config("demo", overrides=["method.name=spark", *own])
    with pytest.raises(ConfigError, match=r"decoder_dim 30 is not a multiple .* stride 4 .* valid value is 28 or 32"):
        load_config("demo-spark", overrides=["decoder_dim=30"])
    with pytest.raises(ConfigError, match="the nearest are 96 and 120"):
        load_config("in100", overrides=["method.name=ijepa", "arch=vit_small", "predictor.dim=100"])
    with pytest.raises(ConfigError, match="patch_size 14"):
        load_config("in100", overrides=["method.name=ijepa", "arch=vit_small", "patch_size=14", "image_size=225"])


def test_patches_are_cells_pixels_and_are_normalised_one_by_one() -> None:
    images = torch.rand(2, 3, 12, 12, dtype=torch.float64)
    patches = patch_pixels(images, 3)
    cell = images[1, :, 4:8, 8:12]
    assert torch.equal(patches[1, 1, 2].sort().values, cell.flatten().sort().values)
    assert torch.equal(patches[1, 1, 2], cell.permute(1, 2, 0).flatten())
    expected = (cell - cell.mean()) / (cell.var() + 1e-6).sqrt()
    torch.testing.assert_close(normalised_patches(images, 3)[1, 1, 2], expected.permute(1, 2, 0).flatten())


def spark_loss(encoder: MaskedEncoder, method: SparK, inputs: tuple[Tensor, ...], grid: Extent) -> Tensor:
    """Section 3 of the paper on the masked encoder: a map after every stage, normed over visible positions, filled,
    projected, added on the way up; every hidden patch's error by itself."""
    images, context, hidden = inputs
    maps = encoder.stage_maps(images, context, [nn.Identity(), nn.Identity()])
    rows, columns = height_width(grid)  # the first stage's map has the image's size
    assert [tuple(m.shape[1:]) for m in maps] == [(32, rows, columns), (16, 2 * rows, 2 * columns)]
    w = dict(method.named_parameters())
    x = torch.zeros(())
    for scale, found in enumerate(maps):
        visible = F.interpolate(context[:, None].double(), size=found.shape[2:], mode="nearest")[:, 0] > 0
        rows = found.permute(0, 2, 3, 1)[visible]
        mean, variance = rows.mean(0), rows.var(0, unbiased=False)
        normed = (rows - mean) / (variance + 1e-5).sqrt() * w[f"norms.{scale}.weight"] + w[f"norms.{scale}.bias"]
        filled = w[f"decoder.scales.{scale}.token"].expand(*visible.shape, -1).clone()
        filled[visible] = normed
        name, pad = f"decoder.scales.{scale}.projection", (0, 1)[scale]
        x = x + F.conv2d(filled.permute(0, 3, 1, 2), w[f"{name}.weight"], w[f"{name}.bias"], padding=pad)
        block = f"decoder.blocks.{scale}"
        x = F.conv_transpose2d(x, w[f"{block}.0.weight"], w[f"{block}.0.bias"], stride=2, padding=1)
        for conv, norm in ((1, 2), (4, 5)):
            x = F.conv2d(x, w[f"{block}.{conv}.weight"], padding=1)
            x = F.batch_norm(x, None, None, w[f"{block}.{norm}.weight"], w[f"{block}.{norm}.bias"], training=True)
            x = x.clamp(0, 6) if norm == 2 else x
    pixels = F.conv2d(x, w["decoder.pixels.weight"], w["decoder.pixels.bias"])
    p, losses = images.shape[-1] // height_width(grid)[1], []
    for b, r, c in hidden.nonzero().tolist():
        window = (b, slice(None), slice(r * p, (r + 1) * p), slice(c * p, (c + 1) * p))
        cell = images[window]
        losses.append(((pixels[window] - (cell - cell.mean()) / (cell.var() + 1e-6).sqrt()) ** 2).mean())
    return torch.stack(losses).mean()


def test_the_decoder_has_the_released_codes_widths_on_a_resnet50() -> None:
    """Width 768, halved at every doubling; 1x1 on the deepest map and 3x3 on the others, with bias; five blocks of one
    4x4 transposed convolution (bias) and two of 3x3."""
    with torch.device("meta"):
        method = build_method(load_config("in100-spark"))
    assert isinstance(method, SparK)
    widths = [768, 384, 192, 96, 48, 24]
    dims = [2048, 1024, 512, 256]
    projections = sum(d * w * k + w for d, w, k in zip(dims, widths, (1, 9, 9, 9), strict=False))
    blocks = sum(25 * w * w + w + 2 * w + 9 * w * w // 2 + w for w in widths[:-1])
    assert sum(p.numel() for p in method.decoder.parameters()) == projections + sum(dims) + blocks + (24 + 1) * 3
    assert [norm.weight.numel() for norm in method.norms] == dims  # type: ignore[union-attr, operator]


@pytest.mark.medium
@pytest.mark.parametrize("changes", [(), ("stages=3", "width=0.375", "image_size=32")])
@pytest.mark.parametrize("preset", ["demo", "tiny64", "cifar"])
def test_a_small_presets_step_takes_fewer_flops_than_cnnjepas(preset: str, changes: tuple[str, ...]) -> None:
    from cnnjepa.measuring.cost import method_cost

    ours, base = (method_cost(load_config(name, overrides=changes)) for name in (f"{preset}-spark", preset))
    assert 0.5 < ours.flops_per_image / base.flops_per_image < 1


def lejepa_loss(method: LeJEPA, inputs: tuple[Tensor, ...], config: PretrainConfig) -> Tensor:
    """Algorithm 2 of the paper: two global views, three local ones of half their sides."""
    *views, slices = inputs
    height, width = config.image_shape[1:]
    sizes = [(height, width)] * 2 + [(height // 2, width // 2)] * 3
    assert [tuple(view.shape[2:]) for view in views] == sizes
    encoded = torch.cat([method.context_encoder(torch.cat(part)).mean((2, 3)) for part in (views[:2], views[2:])])
    z = method.projector(encoded).chunk(5)
    central = z if config.method.centre != "global" else z[:2]  # `auto` is all: this encoder is no transformer
    centre = sum(central) / len(central)
    agreement = sum(((view - centre) ** 2).mean() for view in z) / len(z)
    t = torch.linspace(-5, 5, 17, dtype=torch.float64)
    statistics = []
    for view in z:
        for m in range(slices.shape[2]):
            phi = torch.exp(1j * (view @ slices[0, :, m])[:, None] * t).mean(0)
            gaussian = torch.exp(-(t**2) / 2)
            statistics.append(len(view) * torch.trapezoid((phi - gaussian).abs() ** 2 * gaussian, t))
    return 0.95 * agreement + 0.05 * torch.stack(statistics).mean()


@pytest.mark.medium
@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("ijepa", ()),
        ("ijepa", ("image_size=[48,32]",)),
        ("spark", ()),
        ("spark", ("image_size=[24,40]",)),
        ("lejepa", ()),
        ("lejepa", ("method.centre=global",)),
        ("lejepa", ("image_size=[48,32]", "local_size=[24,16]")),
    ],
)
def test_two_whole_steps_are_those_of_the_definition(name: str, own: tuple[str, ...]) -> None:
    """Loss, gradients, AdamW update, weight-decay schedule and moving average, against a computation by hand."""
    more = ("optimizer.decays=matrices", "weight_decay=0.04", "weight_decay_end=0.4", "optimizer.lr=1e-3")
    config = asked(name, *more, *own)
    method = build_method(config).double().train()
    with torch.no_grad():  # residual branches begin at zero, where half of all gradients vanish
        for module in method.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
    hand = copy.deepcopy(method)
    masked = MaskedEncoder(hand.context_encoder.dense_copy()) if isinstance(hand, SparK) else None  # type: ignore[operator]
    optimizer, schedule = build_optimizer(method, config.optimizer), Schedule(config, steps_per_epoch=3)

    def parameters() -> list[tuple[str, nn.Parameter]]:
        named = [(n, p) for n, p in hand.named_parameters() if p.requires_grad]
        if masked is None:
            return named
        inner = {f"context_encoder.network.{n}": p for n, p in masked.network.named_parameters()}
        return [(n, inner.get(n, p)) for n, p in named]

    groups = [[p for _, p in parameters() if (p.dim() > 1) == decayed] for decayed in (True, False)]
    by_hand = torch.optim.AdamW([{"params": g} for g in groups], betas=(0.9, 0.999))
    g = torch.Generator().manual_seed(0)
    for step in range(2):
        views = tuple(
            torch.randn(6, 3, *height_width(view.size), generator=g, dtype=torch.float64) for view in config.views
        )
        draw = StepDraw(config.grid, torch.arange(6), 0, step)
        inputs = method.inputs(views, torch.zeros(6), draw)
        schedule.set_rates(optimizer, step)
        momentum = schedule.momentum(step)
        if momentum is not None:
            method.follow(momentum)
            with torch.no_grad():
                pairs = zip(hand.target_encoder.parameters(), hand.context_encoder.parameters(), strict=True)  # type: ignore[union-attr, operator]
                for target, source in pairs:
                    target.copy_(momentum * target + (1 - momentum) * source)
        loss = train_step(method, optimizer, inputs, config, Processes(0, 1, torch.device("cpu"))).loss

        if isinstance(hand, SparK):
            assert masked is not None
            expected = spark_loss(masked, hand, inputs, config.grid)
        elif isinstance(hand, LeJEPA):
            expected = lejepa_loss(hand, inputs, config)
        else:
            expected = ijepa_loss(hand, inputs, config)  # type: ignore[arg-type]
        expected.backward()
        assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-6)  # the loss is summed in float32
        decay = 0.4 - (0.4 - 0.04) * (1 + math.cos(math.pi * step / (schedule.total_steps - 1))) / 2
        for group, decayed in zip(by_hand.param_groups, (decay, 0.0), strict=True):
            group["lr"], group["weight_decay"] = schedule.lr(step), decayed
        by_hand.step()
        by_hand.zero_grad()
        ours = dict(method.named_parameters())
        for key, p in parameters():
            torch.testing.assert_close(ours[key], p, rtol=1e-6, atol=1e-7, msg=lambda text, key=key: f"{key}: {text}")


def ijepa_loss(method: IJEPA, inputs: tuple[Tensor, ...], config: PretrainConfig) -> Tensor:
    images, keep, targets = inputs
    grid = config.grid
    codes, own = positions(grid, 48, images), positions(grid, 192, images)
    encoder, predictor, losses = method.context_encoder, method.predictor, []
    with torch.no_grad():
        wanted = [F.layer_norm(f.flatten(1).T, (192,)) for f in method.target_encoder(images)]
    for b in range(len(images)):
        patches = encoder.patch_embed.proj(images[b : b + 1]).flatten(2)[0].T  # type: ignore[operator]
        context = encoder.norm(encoder.blocks((patches + own)[keep[b]][None]))[0]
        for block in targets[b]:
            row = torch.cat([predictor.enter(context) + codes[keep[b]], predictor.token + codes[block]])
            d = predictor.leave(predictor.norm(predictor.blocks(row[None]))[0, len(context) :]) - wanted[b][block]
            losses.append(torch.where(d.abs() < 1, 0.5 * d**2, d.abs() - 0.5).mean())
    return torch.stack(losses).mean()


def test_ijepa_probes_its_target_and_the_others_the_encoder_that_learns() -> None:
    assert asked("ijepa").probed_encoder == "target"
    assert asked("spark").probed_encoder == asked("lejepa").probed_encoder == "context"
    method = asked("ijepa").method
    assert isinstance(method, IJEPAConfig) and method.ema.update == "per_step" and method.ema.start == 0.996


@pytest.mark.parametrize("name", ["cnnjepa", "spark", "ijepa"])
def test_a_step_never_waits_for_a_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor without data refuses whatever a GPU would make the host wait for: sizes and branches that depend on
    values. What decides sizes, the masks, is drawn in host memory."""
    from contextlib import nullcontext

    config = load_config("smoke") if name == "cnnjepa" else asked(name)
    if name != "cnnjepa":  # torch has no autocast for tensors without data, so none to be switched off
        monkeypatch.setattr(f"cnnjepa.methods.{name}.full_precision", lambda *tensors: nullcontext(tensors))
    method = build_method(config).to("meta").train()
    views = tuple(torch.empty(6, 3, view.size, view.size, device="meta") for view in config.views)
    inputs = method.inputs(views, torch.empty(6, device="meta"), StepDraw(config.grid, torch.arange(6), 0, 0))
    assert inputs[2].device.type == method.terms(*inputs).device.type == "meta"
    method(*inputs).total.backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in method.parameters() if p.requires_grad)


@pytest.mark.parametrize(("name", "rest"), [("spark", 1e-12), ("lejepa", 1e-4)])  # LeJEPA's loss has matrix products
def test_flops_are_those_of_a_real_step(name: str, rest: float) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    from cnnjepa.measuring.cost import method_cost

    config = asked(name, "runtime.batch_size=6")
    method = build_method(config)
    views = tuple(torch.randn(6, 3, view.size, view.size) for view in config.views)
    inputs = method.inputs(views, torch.zeros(6), StepDraw(8, torch.arange(6), 0, 0))
    with FlopCounterMode(display=False) as counter:
        method(*inputs).total.backward()
    counted = counter.get_total_flops() / 6
    assert method_cost(config, method).flops_per_image == pytest.approx(counted, rel=rest)
