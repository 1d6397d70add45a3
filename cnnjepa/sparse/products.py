"""Matrix products of rows with a weight, by the fastest kernel this device and precision has.

On CPUs torch sends float32 products to MKL, which on processors that are not Intel's uses half their vector width; oneDNN,
which torch's convolutions use, does not. Measured: docs/performance.md, "The packed encoder".
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

_ONEDNN = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def product(x_RC: Tensor, weight_OC: Tensor, bias: Tensor | None = None) -> Tensor:
    """x · weightᵀ (+ bias), [R, O]."""
    if _ONEDNN and x_RC.dtype == torch.float32 and x_RC.device.type == "cpu":
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x_RC, weight_OC, bias, "none", [], "")
        return found
    return F.linear(x_RC, weight_OC, bias)


if _ONEDNN:

    @register_flop_formula(torch.ops.mkldnn._linear_pointwise)  # type: ignore[untyped-decorator]
    def _flops(x: Any, weight: Any, *rest: Any, out_shape: Any = None, **more: Any) -> int:
        rows = 1
        for size in x[:-1]:
            rows *= size
        return int(2 * rows * weight[0] * weight[1])


class _Rows(torch.autograd.Function):
    """A 1x1 convolution: one product forward, two backward."""

    @staticmethod
    def forward(ctx: Any, x_RC: Tensor, weight_OC: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x_RC, weight_OC)
        return product(x_RC, weight_OC, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x_RC, weight_OC = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        grad = grad.contiguous()
        return (
            product(grad, weight_OC.t()) if for_x else None,
            weight_gradient(grad, x_RC) if for_weight else None,
            grad.sum(0) if for_bias else None,
        )


def rows_product(x_RC: Tensor, weight_OC: Tensor, bias: Tensor | None) -> Tensor:
    """`product` with its gradients. Differentiable once."""
    found: Tensor = _Rows.apply(x_RC, weight_OC, bias)
    return found


def weight_gradient(grad_RO: Tensor, x_RC: Tensor) -> Tensor:
    """gradᵀ · x, [O, C]."""
    return product(grad_RO.t(), x_RC.t())
