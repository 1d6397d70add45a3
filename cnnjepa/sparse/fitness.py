"""Test whether a network can be a packed context encoder: which layer prevents it and why, or a proof that it can.

First every layer is judged by its kind. Then the whole network is compared, packed with masked, in float64.
"""

import copy
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d
from torchvision.ops import Permute

from cnnjepa.masks import sample_masks
from cnnjepa.schemas import RandomMasking
from cnnjepa.sparse.layers import GridSlot, PackedConv2d, PackedMaxPool2d
from cnnjepa.sparse.masked import MaskedEncoder
from cnnjepa.sparse.packed import PackedEncoder
from cnnjepa.sparse.patch_grid import PatchGrid

# Relative error allowed in float64; measured about 1e-14 (tests/test_sparse.py).
TOLERANCE = 1e-9

_POSITION_BY_POSITION = (
    nn.BatchNorm2d, LayerNorm2d, Permute, nn.Identity, nn.Linear, nn.LayerNorm, nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU,
    nn.LeakyReLU, nn.ELU, nn.PReLU, nn.Hardswish, nn.Tanh, nn.Softplus, nn.Mish, nn.Sigmoid,
)  # fmt: skip
_REASONS: tuple[tuple[str, str], ...] = (
    (
        "pool",
        "it mixes the values of many positions, including hidden ones (squeeze-and-excitation, global or average "
        "pooling); leave it out, or put a strided convolution or max-pooling in its place",
    ),
    ("groupnorm", "its statistics include an image's hidden positions; use batch norm or a norm over channels"),
    ("instancenorm", "its statistics include an image's hidden positions; use batch norm or a norm over channels"),
    ("batchnorm1d", "it works on rows, not on maps"),
    ("transpose", "it enlarges the map; a packed encoder can only shrink it"),
    ("upsample", "it enlarges the map; a packed encoder can only shrink it"),
    ("attention", "it mixes the values of many positions, including hidden ones"),
    ("drop", "it is random per sample, and a packed sample is a cell; set its probability to 0 or leave it out"),
    ("stochasticdepth", "it is random per sample, and a packed sample is a cell; set its probability to 0"),
)


class Verdict(NamedTuple):
    """Verdict on one layer, or on the whole network (`layer` is empty)."""

    layer: str
    finding: str
    ok: bool


def judge_layers(network: nn.Module) -> Iterator[Verdict]:
    """Yield a verdict for every layer that cannot be packed, or whose kind is unknown."""
    for name, layer in network.named_modules():
        if any(layer.children()):
            continue
        reason = _reason(layer)
        if reason:
            yield Verdict(name, f"{type(layer).__name__}: {reason}", False)


def _reason(layer: nn.Module) -> str | None:
    try:
        if type(layer) is nn.Conv2d:
            PackedConv2d.of(layer, GridSlot())
            return None
        if type(layer) is nn.MaxPool2d:
            PackedMaxPool2d.of(layer, GridSlot())
            return None
    except ValueError as refusal:
        return str(refusal)
    if isinstance(layer, _POSITION_BY_POSITION):
        return None
    if getattr(layer, "p", None) == 0 or getattr(layer, "drop_prob", None) == 0:
        return None
    kind = type(layer).__name__.lower()
    return next((why for part, why in _REASONS if part in kind), None)


def compare(network: nn.Module, total_stride: int) -> Verdict:
    """Compare packed with masked on random images and masks: features, and gradients of the weights. A difference is
    traced to the first layer after which it appears."""
    backbone = copy.deepcopy(network).double().train()
    for norm in backbone.modules():  # residual branches that start at zero would hide their layers
        if isinstance(norm, nn.BatchNorm2d) and norm.affine:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
    images = torch.rand(3, 3, 4 * total_stride, 4 * total_stride, dtype=torch.float64) - 0.5
    context = sample_masks(RandomMasking(), 4, torch.arange(3), 0, 0).context
    runs: list[tuple[Tensor, dict[str, Tensor], list[Tensor | None]]] = []
    for encoder in (MaskedEncoder(copy.deepcopy(backbone)), PackedEncoder(backbone)):
        seen: dict[str, Tensor] = {}
        try:
            hooks = _watch(encoder.network, seen)
            features = encoder(images, context)
            for hook in hooks:
                hook.remove()
            features.square().sum().backward()
        except (RuntimeError, ValueError, IndexError) as error:
            last = next(reversed(seen), "the first layer")
            kind = "masked" if isinstance(encoder, MaskedEncoder) else "packed"
            return Verdict(last, f"the {kind} network fails after it: {str(error).splitlines()[0][:160]}", False)
        runs.append((features.detach(), seen, [p.grad for p in encoder.parameters()]))
    (expected, theirs, their_grads), (features, ours, our_grads) = runs
    errors = [_relative(features, expected)]
    pairs = [(a, b) for a, b in zip(our_grads, their_grads, strict=True) if a is not None and b is not None]
    # Relative to the largest gradient of all: a bias before a batch norm has only rounding errors as its gradient.
    largest = max((float(b.abs().max()) for _, b in pairs), default=1.0)
    errors += [float((a - b).abs().max()) / largest for a, b in pairs]
    if max(errors) < TOLERANCE:
        return Verdict("", f"packed = masked: relative error {max(errors):.1e} (float64)", True)
    return Verdict(
        _first_difference(ours, theirs, context),
        f"packed and masked differ by {max(errors):.1e} from here on: something before it mixes positions outside a "
        "layer (a mean over positions in forward, an interpolation), or is random",
        False,
    )


def _relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-12))


def _watch(network: nn.Module, seen: dict[str, Tensor]) -> list[torch.utils.hooks.RemovableHandle]:
    def note(name: str):  # type: ignore[no-untyped-def]
        def hook(layer: nn.Module, args: object, output: object) -> None:
            if isinstance(output, Tensor):
                seen[name] = output.detach()

        return hook

    return [
        layer.register_forward_hook(note(name)) for name, layer in network.named_modules() if not any(layer.children())
    ]


def _first_difference(packed: dict[str, Tensor], masked: dict[str, Tensor], context: Tensor) -> str:
    """Return the first layer whose packed output differs from the visible part of the masked one's."""
    grid = PatchGrid(context)
    for name, ours in packed.items():
        theirs = masked.get(name)
        # The masked network's norms work on rows of visible positions. Outputs of shape [B, H, W, C] are not maps.
        if theirs is None or theirs.dim() != 4 or theirs.shape[0] != grid.batch or theirs.shape[2] != theirs.shape[3]:
            continue
        if ours.dim() != 4 or theirs.shape[2] % grid.rows or ours.shape[0] != grid.n:
            return name
        p = theirs.shape[2] // grid.rows
        visible = context.repeat_interleave(p, 1).repeat_interleave(p, 2)
        wanted = grid.pack(torch.where(visible[:, None], theirs, theirs.new_zeros(())))
        if wanted.shape != ours.shape or _relative(ours, wanted) > TOLERANCE:
            return name
    return "the last layer"
