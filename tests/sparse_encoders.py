"""Packed and masked encoders, and the comparison of their outputs and gradients."""

import copy
from typing import get_args

import torch
from torch import Tensor, nn

from cnnjepa.encoders import ResNetBackbone, build_backbone
from cnnjepa.schemas import EncoderConfig
from cnnjepa.schemas.encoder import Arch
from cnnjepa.schemas.extent import Extent, height_width
from cnnjepa.sparse import MaskedEncoder, PackedEncoder

TOLERANCE = 1e-9


ARCHS = get_args(Arch)


def lively_backbone(**settings: object) -> ResNetBackbone:
    """A float64 backbone whose residual branches contribute (they start at zero otherwise)."""
    backbone = build_backbone(EncoderConfig(**settings), seed=0).double()  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    for norm in backbone.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
            nn.init.uniform_(norm.bias, -0.5, 0.5, generator=generator)
    return backbone


def random_context(batch: int, grid: Extent, seed: int = 0) -> Tensor:
    """Half visible; the first sample has one visible cell."""
    rows, columns = height_width(grid)
    context = torch.rand(batch, rows, columns, generator=torch.Generator().manual_seed(seed)) < 0.5
    context[0] = False
    context[0, rows // 2, 0] = True
    return context


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max() / b.detach().abs().max())


def assert_same(packed: PackedEncoder, masked: MaskedEncoder, images: Tensor, context: Tensor) -> None:
    """Outputs, gradients of weights and pixels, and running statistics agree."""
    results = []
    for encoder in (packed, masked):
        pixels = images.clone().requires_grad_()
        features = encoder(pixels, context)
        weight = torch.linspace(-1, 1, features.numel(), dtype=features.dtype, device=features.device).view_as(features)
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


def assert_same_maps(backbone: nn.Module, images: Tensor, grid: Extent) -> None:
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
    sizes = [tuple(m.shape[2:]) for m in results[0][0]]
    assert sizes == [tuple(side * 2**scale for side in height_width(grid)) for scale in range(len(sizes))]
    for ours, theirs in zip(*results, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert relative(a, b) < TOLERANCE
