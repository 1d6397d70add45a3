"""The packed layers: halos, pooling, precision, memory, and the tables of visible patches."""

import copy

import pytest
import torch
from sparse_encoders import lively_backbone, random_context
from torch import nn

from cnnjepa.encoders import build_backbone
from cnnjepa.schemas import EncoderConfig
from cnnjepa.schemas.encoder import Arch
from cnnjepa.sparse import PackedEncoder
from cnnjepa.sparse.geometry import Geometry
from cnnjepa.sparse.halo import halo_index, padded_cells
from cnnjepa.sparse.layers import GridSlot, PackedConv2d
from cnnjepa.sparse.patch_grid import PatchGrid
from cnnjepa.sparse.pooling import max_pool_cells


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
    """With two mixed formats, the backward passes of batch norm and ReLU took ten times as long and more."""
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
