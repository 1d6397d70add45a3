"""The packed encoder gives the masked encoder's outputs and gradients, in float64."""

import copy

import pytest
import torch
import torchvision
from sparse_encoders import ARCHS, TOLERANCE, assert_same, assert_same_maps, lively_backbone, random_context, relative
from torch import nn

from cnnjepa.encoders import build_backbone
from cnnjepa.schemas import EncoderConfig
from cnnjepa.schemas.encoder import Arch
from cnnjepa.sparse import ContextEncoder, MaskedEncoder, PackedEncoder

# (stem, stages, image size): grids 4, 3, 5, 6, 8; strides 32, 16, 8, 4
GEOMETRIES = [("imagenet", 4, 128), ("half", 4, 48), ("small", 4, 40), ("half", 3, 48), ("small", 3, 32)]


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
    with pytest.raises(ValueError, match="have no visible cell"):
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
