"""Packed and masked encoders on grids whose rows and columns differ, in float64."""

import copy
from typing import Any

import pytest
import torch
import torchvision
from sparse_encoders import TOLERANCE, assert_same, assert_same_maps, lively_backbone, random_context, relative
from torch import nn

from cnnjepa.encoders import build_backbone
from cnnjepa.encoders.vit import positions
from cnnjepa.schemas import ConvNeXtConfig, EncoderConfig, ViTConfig
from cnnjepa.sparse import ContextEncoder, MaskedEncoder, PackedEncoder
from cnnjepa.sparse.patch_grid import PatchGrid


def images_of(grid: tuple[int, int], stride: int, batch: int = 3, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    shape = (batch, channels, grid[0] * stride, grid[1] * stride)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def lively_convnext(channels: int = 3) -> nn.Module:
    backbone = build_backbone(ConvNeXtConfig(width=0.125), 0, channels).double()
    for name, parameter in backbone.named_parameters():
        if name.endswith("layer_scale"):  # 1e-6 would hide the blocks
            nn.init.constant_(parameter, 0.5)
    return backbone


@pytest.mark.parametrize(
    ("settings", "grid"),
    [
        ({"arch": "resnet18"}, (2, 4)),
        ({"arch": "resnet18", "stem": "small", "stages": 3}, (7, 4)),
        ({"arch": "resnet18", "stem": "half", "stages": 4}, (1, 5)),
        ({"arch": "resnet50", "stem": "half", "stages": 4}, (5, 3)),
        ({"arch": "resnet50", "stem": "small", "stages": 3}, (3, 6)),
    ],
)
def test_packed_equals_masked_with_gradients_and_statistics(settings: dict[str, Any], grid: tuple[int, int]) -> None:
    backbone = lively_backbone(width=0.125, **settings)
    images = images_of(grid, backbone.total_stride)
    assert_same(PackedEncoder(copy.deepcopy(backbone)), MaskedEncoder(backbone), images, random_context(3, grid))


@pytest.mark.parametrize("channels", [3, 13])
def test_packed_equals_masked_for_convnext(channels: int) -> None:
    backbone, grid = lively_convnext(channels), (3, 2)
    images = images_of(grid, 32, channels=channels)
    assert_same(PackedEncoder(copy.deepcopy(backbone)), MaskedEncoder(backbone), images, random_context(3, grid))


@pytest.mark.medium
@pytest.mark.parametrize("grid", [(32, 32), (32, 20), (6, 32)])
def test_packed_equals_masked_on_grids_of_32_cells(grid: tuple[int, int]) -> None:
    backbone = lively_backbone(arch="resnet18", stem="small", stages=3, width=0.0625)
    images = images_of(grid, backbone.total_stride, batch=2)
    assert_same(PackedEncoder(copy.deepcopy(backbone)), MaskedEncoder(backbone), images, random_context(2, grid))


@pytest.mark.parametrize(("arch", "grid"), [("resnet18", (5, 3)), ("resnet50", (2, 4))])
def test_packed_equals_masked_at_every_scale(arch: str, grid: tuple[int, int]) -> None:
    backbone = lively_backbone(arch=arch, stem="small", stages=3, width=0.125)
    assert_same_maps(backbone, images_of(grid, backbone.total_stride, batch=4), grid)


@pytest.mark.parametrize("kind", [PackedEncoder, MaskedEncoder])
def test_values_under_the_mask_change_no_output_bit(kind: type[ContextEncoder]) -> None:
    grid = (4, 2)
    encoder = kind(build_backbone(EncoderConfig(arch="resnet18", width=0.25), 0))
    images, context = images_of(grid, 32).float(), random_context(3, grid)
    hidden = ~context.repeat_interleave(32, 1).repeat_interleave(32, 2)[:, None].expand_as(images)
    expected = encoder(images, context)
    for value in (1e6, float("nan")):
        assert torch.equal(encoder(images.masked_fill(hidden, value), context), expected)
    assert (expected[~context[:, None].expand_as(expected)] == 0).all()


@pytest.mark.parametrize("arch", ["resnet18", "convnext_tiny"])
def test_all_visible_is_the_unmodified_torchvision_network(arch: str) -> None:
    stock = getattr(torchvision.models, arch)(weights=None).double()
    backbone = (
        lively_backbone(arch=arch) if arch == "resnet18" else build_backbone(ConvNeXtConfig(arch=arch), 0).double()
    )
    _, unexpected = stock.load_state_dict(backbone.state_dict(), strict=False)
    assert unexpected == []
    stock = nn.Sequential(*list(stock.children())[:-2]).eval()
    images, everything = images_of((1, 3), 32, batch=1), torch.ones(1, 1, 3, dtype=torch.bool)
    with torch.no_grad():
        expected = stock(images)
        for encoder in (PackedEncoder(copy.deepcopy(backbone)), MaskedEncoder(copy.deepcopy(backbone))):
            assert relative(encoder.eval()(images, everything), expected) < TOLERANCE


@pytest.mark.parametrize("build", [lambda: lively_backbone(arch="resnet18", width=0.25), lively_convnext])
def test_a_transposed_image_through_transposed_kernels_gives_transposed_features(build: Any) -> None:
    """Rows and columns are exchanged everywhere: in the image, the mask and every kernel."""
    backbone, grid = build(), (4, 2)
    turned = copy.deepcopy(backbone)
    with torch.no_grad():
        for module in turned.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.copy_(module.weight.transpose(2, 3).clone())
    images, context = images_of(grid, 32), random_context(3, grid)
    expected = PackedEncoder(backbone)(images, context)
    found = PackedEncoder(turned)(images.transpose(2, 3).contiguous(), context.transpose(1, 2).contiguous())
    assert found.shape[2:] == (2, 4)
    assert relative(found.transpose(2, 3), expected) < TOLERANCE


def test_cells_keep_their_places_and_neighbours() -> None:
    context = random_context(2, (3, 5), seed=2)
    grid = PatchGrid(context)
    pixels = torch.arange(2 * 6 * 10, dtype=torch.float64).view(2, 1, 6, 10) + 1
    packed = grid.pack(pixels)
    for cell, (sample, row, column) in enumerate(context.nonzero().tolist()):
        assert torch.equal(packed[cell], pixels[sample, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2])
    visible = context.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, None]
    assert torch.equal(grid.unpack_cells(packed), pixels * visible)
    assert torch.equal(grid.take_cells(pixels), packed)
    number = {tuple(cell): n for n, cell in enumerate(context.nonzero().tolist())}
    for down, right in ((0, 1), (1, 0), (-1, -1), (2, 0), (0, 4)):
        for (sample, row, column), found in zip(number, grid.neighbour(down, right).tolist(), strict=True):
            inside = 0 <= row + down < 3 and 0 <= column + right < 5
            expected = number.get((sample, row + down, column + right), grid.n) if inside else grid.n + 1
            assert found == expected


def test_masks_and_images_that_do_not_fit_are_refused() -> None:
    encoder = PackedEncoder(build_backbone(EncoderConfig(arch="resnet18", width=0.25), 0))
    everything = torch.ones(1, 2, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match="images of 128x64 px at total stride 32 need a mask of 4x2 cells; given 2x4"):
        encoder(torch.zeros(1, 3, 128, 64), everything)
    with pytest.raises(ValueError, match=r"a map \[1, C, 2·p, 4·p\] is needed"):
        PatchGrid(everything).pack(torch.zeros(1, 3, 64, 64))


def test_position_codes_of_rows_and_columns_are_independent() -> None:
    """Half of the channels are a function of the column, half of the row; each as on a square grid."""
    codes = positions((3, 5), 16, torch.zeros(1, dtype=torch.float64)).view(3, 5, 16)
    square = positions(5, 16, torch.zeros(1, dtype=torch.float64)).view(5, 5, 16)
    assert torch.equal(codes, square[:3])
    assert torch.equal(codes[0, :, :8], square[2, :, :8]) and torch.equal(codes[:, 0, 8:], square[:3, 4, 8:])
    backbone = build_backbone(ViTConfig(arch="vit_tiny", patch_size=8, blocks=1), 0).double()
    images = images_of((3, 5), 8, batch=2)
    whole = backbone(images)
    assert whole.shape == (2, 192, 3, 5)
    # Without the codes a transformer does not know the order: each cell's own code is added to its own patch.
    patches = torch.nn.functional.conv2d(images, backbone.patch_embed.proj.weight, backbone.patch_embed.proj.bias, 8)  # type: ignore[union-attr, arg-type]
    embedded = backbone.embed(images).view(2, 3, 5, 192)  # type: ignore[operator]
    own = positions((3, 5), 192, images).view(3, 5, 192)
    assert torch.allclose(embedded, patches.permute(0, 2, 3, 1) + own)
