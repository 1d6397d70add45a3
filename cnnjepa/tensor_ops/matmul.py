"""Products of rows and weights on a CPU by oneDNN, in cases where torch would use MKL.

torch passes float32 matrix products on x86 to MKL, which does not use the AVX-512 units of a processor that is not
Intel's: 105 GFLOP/s per thread of an AMD EPYC (Zen 5). oneDNN, which torch uses for convolutions and bf16, reaches 230
(`benchmarks/probes.py` times both in alternating runs). The results are equal to float32 rounding, and deterministic.

Shapes: M rows, K values in, N values out.
"""

import platform
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import register_flop_formula


def linear(x_MK: Tensor, weight_NK: Tensor, bias_N: Tensor | None = None) -> Tensor:
    """Return x · weightᵀ + bias, [M, N], like `F.linear`. Inputs that are not float32 on an x86 CPU are passed to
    `F.linear`."""
    if not by_onednn(x_MK, weight_NK):
        return F.linear(x_MK, weight_NK, bias_N)
    product: Tensor = _Linear.apply(x_MK, weight_NK, bias_N)
    return product


def by_onednn(x: Tensor, weight: Tensor) -> bool:
    """Return whether `linear` uses oneDNN for these tensors."""
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.dim() == 2
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and platform.machine() in ("x86_64", "AMD64")
        and torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _product(x_MK: Tensor, weight_NK: Tensor, bias_N: Tensor | None = None) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(_plain(x_MK), _plain(weight_NK), bias_N, "none", [], "")
    return found


def _plain(matrix: Tensor) -> Tensor:
    """Return the matrix stored by rows or by columns, as a copy if it has other strides, for which oneDNN may be far
    slower."""
    return matrix if matrix.is_contiguous() or matrix.t().is_contiguous() else matrix.contiguous()


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_MK: Tensor, weight_NK: Tensor, bias_N: Tensor | None) -> Tensor:
        ctx.save_for_backward(x_MK, weight_NK)
        return _product(x_MK, weight_NK, bias_N)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_MN: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x_MK, weight_NK = ctx.saved_tensors
        return (
            _product(grad_MN, weight_NK.t()) if ctx.needs_input_grad[0] else None,
            _product(grad_MN.t(), x_MK.t()) if ctx.needs_input_grad[1] else None,
            grad_MN.sum(0) if ctx.needs_input_grad[2] else None,
        )


if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"):

    @register_flop_formula(torch.ops.mkldnn._linear_pointwise)
    def _flops(x_shape: Any, weight_shape: Any, *further: Any, **more: Any) -> int:
        """Count FLOPs, so that torch's counter includes these products."""
        return int(2 * x_shape[0] * x_shape[1] * weight_shape[0])
