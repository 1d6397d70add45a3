"""Batch norm with the sum and the ReLU that follow it, computed together where a kernel is in use."""

import torch
from torch import Tensor, nn

from cnnjepa import kernels
from cnnjepa.sparse.layers import PackedBatchNorm2d


def norm_relu(norm: nn.Module, relu: nn.Module | None, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """Return relu(norm(x) + residual) for a map [B, C, H, W] or packed cells [n, C, p, p]; `relu` None leaves it out.

    The modules are called one after the other, as in torchvision, unless `norm` is a plain batch norm in training whose
    tensors a kernel takes. Modules with hooks are always called."""
    if isinstance(norm, nn.BatchNorm2d) and _is_fused(norm, relu, x):
        return _fused(norm, relu is not None, x, residual)
    out: Tensor = norm(x)
    if residual is not None:
        out += residual
    return out if relu is None else relu(out)


def _is_fused(norm: nn.BatchNorm2d, relu: nn.Module | None, x: Tensor) -> bool:
    return (
        type(norm) in (nn.BatchNorm2d, PackedBatchNorm2d)
        and norm.training
        and norm.affine
        and norm.momentum is not None
        and x.numel() > x.shape[1]
        and x.shape[1] > 1
        and (relu is None or type(relu) is nn.ReLU)
        and not any(m._forward_hooks or m._forward_pre_hooks for m in (norm, relu) if m is not None)
        and not torch.compiler.is_compiling()
        and kernels.used("batch_norm", x)
        and x.permute(0, 2, 3, 1).is_contiguous()
    )


def _fused(norm: nn.BatchNorm2d, relu: bool, x: Tensor, residual: Tensor | None) -> Tensor:
    from cnnjepa.kernels.batch_norm import batch_norm

    running = None
    if norm.track_running_stats:
        assert norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
        running = (norm.running_mean, norm.running_var)
    assert norm.momentum is not None
    rows = None if residual is None else _rows(residual.to(x.dtype))
    grid = norm.slot.grid if isinstance(norm, PackedBatchNorm2d) else None
    counted, per_count = (None, 1) if grid is None else (grid.count, x.shape[2] * x.shape[3])
    out = batch_norm(_rows(x), norm.weight, norm.bias, running, norm.momentum, norm.eps, rows, relu, counted, per_count)
    return out.view(x.shape[0], *x.shape[2:], -1).permute(0, 3, 1, 2)


def _rows(x: Tensor) -> Tensor:
    """Reshape [n, C, p, p] → [n·p·p, C]; a view in channels-last memory."""
    return x.permute(0, 2, 3, 1).flatten(0, 2).contiguous()
