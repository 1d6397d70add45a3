"""I-JEPA, SparK and LeJEPA against their definitions, timm's transformer and closed forms, in float64."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnjepa.encoders.vit import ViTBackbone, build_vit, positions
from cnnjepa.masks.context_blocks import draw_context_blocks
from cnnjepa.methods import StepDraw, build_method
from cnnjepa.methods.ijepa import IJEPA
from cnnjepa.methods.lejepa import LeJEPA, draw_slices, epps_pulley
from cnnjepa.methods.spark import SparK, normalised_patches, patch_pixels
from cnnjepa.schemas import ConfigError, IJEPAConfig, IJEPAMasking, PretrainConfig, ViTConfig, load_config
from cnnjepa.sparse import MaskedEncoder
from cnnjepa.training.distributed import Processes
from cnnjepa.training.optimizer import build_optimizer
from cnnjepa.training.schedule import Schedule
from cnnjepa.training.step import train_step

IJEPA_SMALL = (
    "method.name=ijepa", "arch=vit_tiny", "patch_size=4", "min_keep=4", "predictor.depth=2", "predictor.dim=48",
)  # fmt: skip


def asked(name: str, *more: str) -> PretrainConfig:
    own = {
        "ijepa": IJEPA_SMALL,
        "spark": ("method.name=spark",),
        "lejepa": ("method.name=lejepa", "hidden_dim=24", "output_dim=8", "slices=32", "local_views=3"),
    }[name]
    return load_config("smoke", overrides=[*own, "runtime.batch_size=6", *more])


# --- The transformer ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arch", "width", "heads"), [("vit_tiny", 192, 3), ("vit_small", 384, 6), ("vit_base", 768, 12)]
)
def test_the_transformer_has_timms_parameters_and_names(arch: str, width: int, heads: int) -> None:
    import timm

    with torch.device("meta"):
        ours = ViTBackbone(ViTConfig(arch=arch))  # type: ignore[arg-type]
        stock = timm.create_model(f"{arch}_patch16_224", class_token=False, global_pool="avg", pos_embed="none")
    theirs = {k: v.shape for k, v in stock.state_dict().items() if not k.startswith(("head", "fc_norm"))}
    mine = {k: v.shape for k, v in ours.state_dict().items() if not k.startswith("norm")}
    assert mine == theirs
    assert (ours.feature_dim, ours.heads) == (width, heads)


def timms(backbone: ViTBackbone, grid: int) -> nn.Module:
    """timm's network with the backbone's weights and positions."""
    from timm.models.vision_transformer import VisionTransformer

    p = backbone.total_stride
    stock = VisionTransformer(
        img_size=grid * p, patch_size=p, embed_dim=backbone.feature_dim, depth=len(backbone.blocks),
        num_heads=backbone.heads, class_token=False, global_pool="avg", num_classes=0, fc_norm=False,
    ).double()  # fmt: skip
    codes = positions(grid, backbone.feature_dim, torch.zeros(1).double())
    stock.load_state_dict({**backbone.state_dict(), "pos_embed": codes[None]})
    return stock


def test_the_transformers_features_are_timms_for_all_tokens_and_for_some() -> None:
    backbone = build_vit(ViTConfig(arch="vit_tiny", patch_size=8, blocks=5), 0).double()
    images = torch.randn(2, 3, 48, 48, dtype=torch.float64)
    stock = timms(backbone, 6)
    whole = stock.forward_features(images)  # type: ignore[operator]
    torch.testing.assert_close(backbone(images).flatten(2).transpose(1, 2), whole, rtol=1e-9, atol=1e-10)
    keep = torch.tensor([[0, 7, 35], [4, 5, 6]])
    embedded = stock.pos_drop(stock.patch_embed(images) + stock.pos_embed)  # type: ignore[operator]
    for sample in (0, 1):
        alone = stock.norm(stock.blocks(embedded[sample : sample + 1, keep[sample]]))  # type: ignore[operator]
        torch.testing.assert_close(backbone.tokens(images, keep)[sample : sample + 1], alone, rtol=1e-9, atol=1e-10)


def test_positions_are_sines_and_cosines_of_column_and_row() -> None:
    codes = positions(5, 16, torch.zeros(1, dtype=torch.float64))
    for row, column in ((0, 0), (3, 1), (4, 4)):
        expected = []
        for place in (column, row):
            angles = [place / 10000 ** (i / 4) for i in range(4)]
            expected += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        assert codes[5 * row + column].tolist() == pytest.approx(expected, rel=1e-12)


def test_a_missing_timm_is_told_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [name for name in sys.modules if name.split(".")[0] == "timm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"needs timm, which is not installed: pip install -e '.*\[vit\]'"):
        build_method(asked("ijepa"))


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


# --- I-JEPA's masks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("grid", "min_keep"), [(14, 10), (16, 10), (8, 4)])
@pytest.mark.parametrize("sampler", ["faithful", "unbiased"])
def test_context_and_targets_are_blocks_that_do_not_overlap(grid: int, min_keep: int, sampler: str) -> None:
    masking = IJEPAMasking(min_keep=min_keep, sampler=sampler)  # type: ignore[arg-type]
    visible = []
    for step in range(60):
        drawn = draw_context_blocks(masking, grid, torch.arange(8), 0, step)
        assert drawn.targets.shape[1] == 4
        for sample in range(8):
            hidden = set(drawn.targets[sample].flatten().tolist())
            context = drawn.context[sample].tolist()
            assert not hidden & set(context) and len(set(context)) == len(context) > min_keep
            for block in drawn.targets[sample]:
                rows, columns = block // grid, block % grid
                assert len(block) == (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1) > min_keep
                assert 0.1 <= len(block) / grid**2 <= 0.22  # sides are rounded
                if sampler == "faithful":
                    assert rows.max() < grid - 1 and columns.max() < grid - 1
        visible.append(drawn.context.shape[1])
    assert 0 < sum(visible) / len(visible) / grid**2 < masking.mean_context(grid) / grid**2 + 0.02  # cut to the least


def test_masks_are_a_function_of_seed_step_and_place() -> None:
    masking = IJEPAMasking()
    whole = draw_context_blocks(masking, 14, torch.arange(16), 1, 5)
    part = draw_context_blocks(masking, 14, torch.arange(8, 16), 1, 5)
    assert torch.equal(whole.targets[8:], part.targets)
    least = min(whole.context.shape[1], part.context.shape[1])
    assert torch.equal(whole.context[8:, :least], part.context[:, :least])
    assert not torch.equal(whole.targets, draw_context_blocks(masking, 14, torch.arange(16), 2, 5).targets)


def test_grids_too_small_for_the_blocks_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"never more than masking\.min_keep 10"):
        load_config("smoke", overrides=["method.name=ijepa", "arch=vit_tiny", "patch_size=8"])
    with pytest.raises(ConfigError, match=r"context_scale \[0.05, 0.05\] gives no context block"):
        load_config("smoke", overrides=[*IJEPA_SMALL, "context_scale=[0.05,0.05]"])


# --- LeJEPA's statistic -------------------------------------------------------------------------------------------


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


# --- SparK's patches ----------------------------------------------------------------------------------------------


def test_patches_are_cells_pixels_and_are_normalised_one_by_one() -> None:
    images = torch.rand(2, 3, 12, 12, dtype=torch.float64)
    patches = patch_pixels(images, 3)
    cell = images[1, :, 4:8, 8:12]
    assert torch.equal(patches[1, 1, 2].sort().values, cell.flatten().sort().values)
    assert torch.equal(patches[1, 1, 2], cell.permute(1, 2, 0).flatten())
    expected = (cell - cell.mean()) / (cell.var() + 1e-6).sqrt()
    torch.testing.assert_close(normalised_patches(images, 3)[1, 1, 2], expected.permute(1, 2, 0).flatten())


# --- Whole steps --------------------------------------------------------------------------------------------------


def spark_loss(encoder: MaskedEncoder, method: SparK, inputs: tuple[Tensor, ...], grid: int) -> Tensor:
    """Section 3 of the paper on the masked encoder: a map after every stage, normed over visible positions, filled,
    projected, added on the way up; every hidden patch's error by itself."""
    images, context, hidden = inputs
    maps = encoder.stage_maps(images, context, [nn.Identity(), nn.Identity()])
    assert [tuple(m.shape[1:]) for m in maps] == [(32, 8, 8), (16, 16, 16)]  # the first stage's has the image's size
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
    p, losses = images.shape[-1] // grid, []
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
    """Algorithm 2 of the paper: two global views of 32 px, three local ones of 16."""
    *views, slices = inputs
    assert [view.shape[-1] for view in views] == [32, 32, 16, 16, 16]
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
    ("name", "own"), [("ijepa", ()), ("spark", ()), ("lejepa", ()), ("lejepa", ("method.centre=global",))]
)
def test_two_whole_steps_are_those_of_the_definition(name: str, own: tuple[str, ...]) -> None:
    """Loss, gradients, AdamW update, weight-decay schedule and moving average: what the loop does, done beside it."""
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
            torch.randn(6, 3, view.size, view.size, generator=g, dtype=torch.float64) for view in config.views
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
