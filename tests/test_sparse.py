"""Packed = masked = stock, in float64."""

import copy
from typing import get_args

import pytest
import torch
import torchvision
from torch import Tensor, nn

from cnnjepa.encoders import ResNetBackbone, build_backbone
from cnnjepa.schemas import EncoderConfig
from cnnjepa.schemas.encoder import Arch
from cnnjepa.sparse import ContextEncoder, MaskedEncoder, PackedEncoder
from cnnjepa.sparse.geometry import Geometry
from cnnjepa.sparse.halo import halo_index, padded_cells
from cnnjepa.sparse.layers import GridSlot, PackedConv2d
from cnnjepa.sparse.patch_grid import PatchGrid
from cnnjepa.sparse.pooling import max_pool_cells

TOLERANCE = 1e-9
ARCHS = get_args(Arch)
# (stem, stages, image size): grids 4, 3, 5, 6, 8; strides 32, 16, 8, 4
GEOMETRIES = [("imagenet", 4, 128), ("half", 4, 48), ("small", 4, 40), ("half", 3, 48), ("small", 3, 32)]


def lively_backbone(**settings: object) -> ResNetBackbone:
    """A float64 backbone whose residual branches contribute (they start at zero otherwise)."""
    backbone = build_backbone(EncoderConfig(**settings), seed=0).double()  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    for norm in backbone.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
            nn.init.uniform_(norm.bias, -0.5, 0.5, generator=generator)
    return backbone


def random_context(batch: int, grid: int, seed: int = 0) -> Tensor:
    """Half visible; the first sample has one visible cell."""
    context = torch.rand(batch, grid, grid, generator=torch.Generator().manual_seed(seed)) < 0.5
    context[0] = False
    context[0, grid // 2, 0] = True
    return context


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max() / b.detach().abs().max())


def assert_same(packed: PackedEncoder, masked: MaskedEncoder, images: Tensor, context: Tensor) -> None:
    """Outputs, gradients of weights and pixels, and running statistics agree."""
    results = []
    for encoder in (packed, masked):
        pixels = images.clone().requires_grad_()
        features = encoder(pixels, context)
        weight = torch.linspace(-1, 1, features.numel(), dtype=features.dtype).view_as(features)
        (features * weight).sum().backward()
        results.append((features.detach(), pixels.grad))
    (features, pixel_grad), (expected, expected_grad) = results
    assert pixel_grad is not None and expected_grad is not None
    assert relative(features, expected) < TOLERANCE
    assert relative(pixel_grad, expected_grad) < TOLERANCE
    for (name, p), q in zip(packed.named_parameters(), masked.parameters(), strict=True):
        assert p.grad is not None and q.grad is not None
        assert relative(p.grad, q.grad) < TOLERANCE, name
    for (name, a), b in zip(packed.named_buffers(), masked.buffers(), strict=True):
        assert relative(a.double(), b.double()) < TOLERANCE, name


@pytest.mark.medium
@pytest.mark.parametrize("arch", ARCHS)
def test_packed_equals_masked_for_every_encoder(arch: Arch) -> None:
    backbone = lively_backbone(arch=arch, width=0.25)
    images = torch.randn(3, 3, 96, 96, dtype=torch.float64)
    assert_same(PackedEncoder(copy.deepcopy(backbone)), MaskedEncoder(backbone), images, random_context(3, 3))


@pytest.mark.medium
@pytest.mark.parametrize(("stem", "stages", "size"), GEOMETRIES)
@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_packed_equals_masked_on_every_grid(arch: Arch, stem: str, stages: int, size: int) -> None:
    backbone = lively_backbone(arch=arch, stem=stem, stages=stages, width=0.125)
    grid = size // EncoderConfig(arch=arch, stem=stem, stages=stages).total_stride  # type: ignore[arg-type]
    images = torch.randn(4, 3, size, size, dtype=torch.float64)
    assert_same(PackedEncoder(copy.deepcopy(backbone)), MaskedEncoder(backbone), images, random_context(4, grid))


@pytest.mark.medium
@pytest.mark.parametrize(("stem", "stages", "size"), GEOMETRIES)
@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_packed_equals_masked_at_every_scale(arch: Arch, stem: str, stages: int, size: int) -> None:
    backbone = lively_backbone(arch=arch, stem=stem, stages=stages, width=0.125)
    assert_same_maps(backbone, torch.randn(4, 3, size, size, dtype=torch.float64), size // backbone.total_stride)


def assert_same_maps(backbone: nn.Module, images: Tensor, grid: int) -> None:
    """Normed maps of all stages with their gradients; what norms saw; the deepest map without norm is the features."""
    context = random_context(images.shape[0], grid)
    results = []
    for encoder in (PackedEncoder(copy.deepcopy(backbone)), MaskedEncoder(copy.deepcopy(backbone))):
        norms = nn.ModuleList(
            backbone.stage_norm(stage) for stage in range(-1, -len(backbone.stage_dims) - 1, -1)
        ).double()  # type: ignore[operator, arg-type]
        assert torch.equal(encoder.stage_maps(images, context, [nn.Identity()])[0], encoder(images, context))
        for norm in norms:
            nn.init.uniform_(norm.weight, 0.5, 1.5, generator=torch.Generator().manual_seed(3))
            nn.init.constant_(norm.bias, 0.3)  # so that a masked position would show
        maps = encoder.stage_maps(images, context, list(norms))
        loss = sum((m * torch.linspace(-1, 1, m.numel(), dtype=m.dtype).view_as(m)).sum() for m in maps)
        loss.backward()  # type: ignore[union-attr]
        both = nn.ModuleList([encoder, norms])
        results.append((maps, [p.grad for p in both.parameters()], [b.double() for b in both.buffers()]))
    sides = [m.shape[2] for m in results[0][0]]
    assert sides == [grid * 2**scale for scale in range(len(sides))]
    for ours, theirs in zip(*results, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert relative(a, b) < TOLERANCE


def test_packed_equals_masked_in_evaluation_mode() -> None:
    backbone = lively_backbone(arch="resnet18", width=0.25).eval()
    images, context = torch.randn(3, 3, 96, 96, dtype=torch.float64), random_context(3, 3)
    packed, masked = PackedEncoder(copy.deepcopy(backbone)), MaskedEncoder(backbone)
    with torch.no_grad():
        assert relative(packed(images, context), masked(images, context)) < TOLERANCE


@pytest.mark.medium
@pytest.mark.parametrize("arch", ARCHS)
def test_all_visible_is_the_unmodified_torchvision_network(arch: Arch) -> None:
    stock = getattr(torchvision.models, arch)(weights=None, zero_init_residual=True).double()
    backbone = lively_backbone(arch=arch)
    missing, unexpected = stock.load_state_dict(backbone.state_dict(), strict=False)
    assert (missing, unexpected) == (["fc.weight", "fc.bias"], [])
    stock = nn.Sequential(*list(stock.children())[:-2])  # without pooling and classifier
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    everything = torch.ones(2, 2, 2, dtype=torch.bool)
    expected = stock(images)
    for encoder in (PackedEncoder(copy.deepcopy(backbone)), MaskedEncoder(copy.deepcopy(backbone))):
        assert relative(encoder(images, everything), expected) < TOLERANCE


@pytest.mark.parametrize("kind", [PackedEncoder, MaskedEncoder])
def test_values_under_the_mask_change_no_output_bit(kind: type[ContextEncoder]) -> None:
    encoder = kind(build_backbone(EncoderConfig(arch="resnet18", width=0.25), 0))
    images, context = torch.randn(3, 3, 96, 96), random_context(3, 3)
    hidden = ~context.repeat_interleave(32, 1).repeat_interleave(32, 2)[:, None].expand_as(images)
    expected = encoder(images, context)
    for value in (1e6, float("nan"), float("inf")):
        other = images.masked_fill(hidden, value)
        assert torch.equal(encoder(other, context), expected)
    assert (expected[~context[:, None].expand_as(expected)] == 0).all()


def test_the_masked_encoder_shares_no_code_with_the_packed_one() -> None:
    import cnnjepa.sparse.masked as masked

    ours = [name for name, value in vars(masked).items() if getattr(value, "__module__", "").startswith("cnnjepa")]
    assert all(getattr(masked, name).__module__ == "cnnjepa.sparse.masked" for name in ours)
    assert type(MaskedEncoder(lively_backbone(arch="resnet18", width=0.125)).network.conv1) is nn.Conv2d  # type: ignore[union-attr]


def test_the_masked_encoder_leaves_the_stock_network_as_it_was() -> None:
    encoder = MaskedEncoder(lively_backbone(arch="resnet18", width=0.125))
    with pytest.raises(RuntimeError):
        encoder(torch.randn(2, 3, 50, 64, dtype=torch.float64), random_context(2, 2))
    for layer in encoder.network.modules():
        assert not layer._forward_hooks and not layer._forward_pre_hooks


def test_two_encoders_with_different_grids_run_interleaved() -> None:
    first, second = (
        lively_backbone(arch="resnet18", width=0.125),
        lively_backbone(arch="resnet18", stem="half", width=0.125),
    )
    a, b = PackedEncoder(copy.deepcopy(first)), PackedEncoder(copy.deepcopy(second))
    images = torch.randn(2, 3, 96, 96, dtype=torch.float64)
    context_a, context_b = random_context(2, 3, 0), random_context(2, 6, 1)
    alone = PackedEncoder(first)(images, context_a), PackedEncoder(second)(images, context_b)
    out_a = a(images, context_a)
    out_b = b(images, context_b)  # before a's backward
    out_a.square().sum().backward()
    out_b.square().sum().backward()
    assert torch.equal(out_a, alone[0]) and torch.equal(out_b, alone[1])
    assert all(p.grad is not None for p in [*a.parameters(), *b.parameters()])


def test_dense_copies_are_stock_layers_that_share_nothing() -> None:
    backbone = lively_backbone(arch="resnet18", width=0.125)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    expected = copy.deepcopy(backbone)(images)
    for encoder in (PackedEncoder(copy.deepcopy(backbone)), MaskedEncoder(backbone)):
        network = encoder.dense_copy()
        assert {type(m) for m in network.modules() if isinstance(m, nn.Conv2d)} == {nn.Conv2d}
        assert relative(network(images), expected) < TOLERANCE
        ours = {p.data_ptr() for p in encoder.parameters()}
        assert not ours & {p.data_ptr() for p in network.parameters()}
        assert list(network.state_dict()) == list(encoder.network.state_dict())


@pytest.mark.parametrize(("p", "before", "after"), [(1, 1, 1), (1, 3, 3), (2, 3, 3), (4, 1, 0), (8, 3, 2)])
def test_a_halo_is_the_dense_neighbourhood_also_when_wider_than_a_cell(p: int, before: int, after: int) -> None:
    context = random_context(2, 5)
    grid = PatchGrid(context)
    dense = torch.randn(2, 3, 5 * p, 5 * p, dtype=torch.float64)
    visible = context.repeat_interleave(p, 1).repeat_interleave(p, 2)[:, None]
    padded = nn.functional.pad(dense * visible, (before, after, before, after), value=-7.0)
    expected = [
        padded[b, :, r * p : r * p + before + p + after, c * p : c * p + before + p + after]
        for b, r, c in context.nonzero().tolist()
    ]
    found = padded_cells(grid.pack(dense), halo_index(grid, p, before, after), outside=-7.0)
    assert torch.equal(found, torch.stack(expected))


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 1), (2, 2, 0), (5, 1, 2)])
def test_the_poolings_backward_is_the_gradient(kernel: int, stride: int, padding: int) -> None:
    grid = PatchGrid(random_context(2, 4))
    cells = torch.randn(grid.n, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: max_pool_cells(x, grid, Geometry(kernel, stride, padding)), (cells,))


def test_an_input_of_another_dtype_is_refused() -> None:
    encoder = PackedEncoder(build_backbone(EncoderConfig(arch="resnet18", width=0.25), seed=0))
    with pytest.raises(RuntimeError, match=r"input is torch.float64 and its weight torch.float32"):
        encoder(torch.randn(1, 3, 96, 96, dtype=torch.float64), torch.ones(1, 3, 3, dtype=torch.bool))


def test_a_bf16_step_keeps_no_copies_of_the_weights() -> None:
    encoder = PackedEncoder(build_backbone(EncoderConfig(arch="resnet18", width=0.25), seed=0))
    images, context = torch.randn(2, 3, 96, 96), torch.tensor([[[1, 0, 1], [0, 1, 1], [0, 0, 1]]]).bool()
    kept: list[torch.Tensor] = []
    with (
        torch.autocast("cpu", torch.bfloat16),
        torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x),
    ):
        encoder(images, context.expand(2, 3, 3))
    weights = {p.numel() for p in encoder.parameters() if p.dim() == 4}
    halves = {x.numel() for x in kept if x.dtype == torch.bfloat16 and x.shape[0] != 10}  # 10 visible cells
    assert any(p.dtype == torch.bfloat16 for p in kept) and not weights & halves


def test_pooling_keeps_neither_its_windows_nor_wide_indices() -> None:
    grid = PatchGrid(torch.ones(1, 4, 4, dtype=torch.bool))
    cells = torch.randn(grid.n, 8, 16, 16, requires_grad=True)
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        pooled = max_pool_cells(cells, grid, Geometry(3, 2, 1))
    assert sum(x.nbytes for x in kept) == pooled.numel() * 2


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 4, 3, dilation=2),
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(3, 4, (1, 3)),
        nn.Conv2d(3, 4, 1, padding=1),
        nn.MaxPool2d(3, 2, 1, ceil_mode=True),
    ],
)
def test_a_layer_that_cannot_be_packed_is_refused_by_name(layer: nn.Module) -> None:
    with pytest.raises(ValueError, match="cannot be packed"):
        PackedEncoder(nn.Sequential(layer))


def test_a_mask_that_does_not_fit_is_refused() -> None:
    encoder = PackedEncoder(lively_backbone(arch="resnet18", width=0.125))
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with pytest.raises(ValueError, match="boolean"):
        encoder(images, torch.ones(2, 2, 2))
    with pytest.raises(ValueError, match="without any visible cell"):
        encoder(images, torch.zeros(2, 2, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="total stride"):
        encoder(images, torch.ones(2, 4, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="is needed for this mask"):
        encoder(images, torch.ones(3, 2, 2, dtype=torch.bool))
    assert encoder(images, torch.ones(2, 2, 2, dtype=torch.bool)).shape == (2, 64, 2, 2)


def test_the_packed_encoder_computes_the_visible_share_of_the_flops() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    encoder = PackedEncoder(lively_backbone(arch="resnet50", width=0.125))
    images = torch.randn(2, 3, 128, 128, dtype=torch.float64)
    context = torch.zeros(2, 4, 4, dtype=torch.bool)
    context[:, :, :2] = True  # half
    counts = []
    for mask in (torch.ones_like(context), context):
        with FlopCounterMode(display=False) as counter:
            encoder(images, mask)
        counts.append(counter.get_total_flops())
    assert counts[1] == counts[0] / 2


@pytest.mark.parametrize("memory", [torch.channels_last, torch.contiguous_format])
def test_gradients_of_1x1_weights_have_their_strides(memory: torch.memory_format) -> None:
    """Others are copied by DDP in every step."""
    backbone = lively_backbone(arch="resnet50", width=0.125).to(memory_format=memory)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    PackedEncoder(backbone)(images, random_context(2, 2)).sum().backward()
    ones = [p for p in backbone.parameters() if p.shape[2:] == (1, 1)]
    assert len(ones) > 30
    assert [p.grad.stride() for p in ones if p.grad is not None] == [p.stride() for p in ones]


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2)])
@pytest.mark.parametrize("p", [8, 4, 2])
def test_every_kernel_of_every_precision_is_float64_to_its_rounding(kernel: int, stride: int, p: int) -> None:
    """Kernels are chosen by precision, size and number of rows; the same rounded numbers go into each."""
    grid = PatchGrid(torch.rand(16, 5, 5, generator=torch.Generator().manual_seed(0)) < 0.5)
    cells, outputs = torch.randn(grid.n, 32, p, p).bfloat16(), torch.randn(grid.n, 64, p // stride, p // stride)
    layer = nn.Conv2d(32, 64, kernel, stride, kernel // 2)
    layer.weight.data = layer.weight.data.bfloat16().float()
    layer.bias.data = layer.bias.data.bfloat16().float()  # type: ignore[union-attr]
    found = {}
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        slot = GridSlot()
        slot.grid = grid
        packed = PackedConv2d.of(copy.deepcopy(layer).to(torch.float64 if dtype.itemsize == 8 else torch.float32), slot)
        x = cells.to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            y = packed(x)
        assert y.dtype is dtype
        y.backward(outputs.bfloat16().to(dtype))
        found[dtype] = [y.detach(), x.grad, packed.weight.grad, packed.bias.grad]  # type: ignore[union-attr]
    for dtype, allowed in ((torch.float32, 1e-6), (torch.bfloat16, 1e-2)):
        for ours, exact in zip(found[dtype], found[torch.float64], strict=True):
            assert ours is not None and exact is not None
            assert float((ours.double() - exact).norm() / exact.norm()) < allowed


def test_gradients_stay_in_channels_last_memory() -> None:
    """Where two formats met, batch norm's and ReLU's backwards took ten times as long and more."""
    from torch.utils._python_dispatch import TorchDispatchMode

    mixed: list[str] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if any(name in str(function) for name in ("batch_norm_backward", "threshold_backward")):
                strides = {t.stride() for t in args[:2] if t.shape[2] > 1 or "batch_norm" in str(function)}
                if len(strides) > 1:
                    mixed.append(f"{function} {strides}")
            return function(*args, **(kwargs or {}))

    encoder = PackedEncoder(
        build_backbone(EncoderConfig(arch="resnet50", width=0.25), 0).to(memory_format=torch.channels_last)
    )  # type: ignore[call-overload]
    images = torch.randn(3, 3, 96, 96).contiguous(memory_format=torch.channels_last)
    with Watch():
        encoder(images, random_context(3, 3)).square().sum().backward()
    assert mixed == []


@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_without_a_rim_gathers_nothing(stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a GPU runs 1x1 convolutions on larger cells, and any device those whose kernel is their stride."""
    from torch.utils._python_dispatch import TorchDispatchMode

    gathers: list[str] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            gathers.extend([str(function)] * any(name in str(function) for name in ("index", "embedding_bag")))
            return function(*args, **(kwargs or {}))

    grid = PatchGrid(random_context(3, 3))
    conv = nn.Conv2d(8, 6, stride, stride).double()
    x = torch.randn(grid.n, 8, 4, 4, dtype=torch.float64).contiguous(memory_format=torch.channels_last).requires_grad_()
    expected = conv(x)
    (wanted,) = torch.autograd.grad(expected.square().sum(), x)
    monkeypatch.setattr("cnnjepa.sparse.layers._product_side", lambda x, kernel: 0)
    slot = GridSlot()
    slot.grid = grid
    packed = PackedConv2d.of(conv, slot)
    with Watch():
        found = packed(x)
        (gradient,) = torch.autograd.grad(found.square().sum(), x)
    assert gathers == []
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient, wanted)


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_building_the_tables_never_waits_for_a_device(arch: Arch) -> None:
    """A tensor without data refuses whatever a GPU would make the host wait for: sizes and branches that depend on
    values. The mask is the host's."""
    encoder = PackedEncoder(build_backbone(EncoderConfig(arch=arch), 0)).to("meta")
    context = random_context(3, 3)
    features = encoder(torch.empty(3, 3, 96, 96, device="meta"), context)
    features.sum().backward()
    assert features.shape == (3, encoder.network.feature_dim, 3, 3)
    assert all(p.grad is not None and p.grad.shape == p.shape for p in encoder.parameters())
