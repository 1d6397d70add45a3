"""1x1 convolutions as matrix products on rows of channels.

Shapes: R rows (pixels), C channels in, O out.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cnnjepa.tensor_ops.matmul import linear

# Number of rows from which the convolution's kernel computes a float32 weight gradient. The kernel reads both factors
# in place; oneDNN's product copies transposed factors first, which costs little for few rows. One thread of an AMD
# EPYC, 256 x 64 channels: 110 against 91 GFLOP/s at 26,560 rows; 1,024 x 256: 180 against 215 at 1,600.
_LONG = 4096
# Batch size from which torch uses oneDNN for a 1x1 convolution on one thread.
_BATCH = 16


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_RC: Tensor, weight_OC: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x_RC, weight_OC)
        return linear(x_RC, *cast(x_RC.dtype, weight_OC, bias))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x_RC, weight_OC = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        grad = grad.contiguous()
        return (
            linear(grad, weight_OC.to(x_RC.dtype).t()) if for_x else None,
            weight_gradient(grad, x_RC).to(weight_OC.dtype) if for_weight else None,
            grad.sum(0).to(weight_OC.dtype) if for_bias else None,
        )


def as_matrix(weight: Tensor) -> Tensor:
    """Reshape a weight [O, C, k, k] → [O, k·k·C]; a view if the memory is channels-last. The gradient of a 1x1 weight
    has the weight's strides in either memory format: DDP copies gradients with other strides, and warns about it."""
    if weight.shape[2:] == (1, 1) and weight.stride(3) == 1:
        return weight.flatten(1)
    return weight.permute(0, 2, 3, 1).flatten(1)


def cast(to: torch.dtype, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Cast a layer's parameters to its input's dtype."""
    return weight.to(to), None if bias is None else bias.to(to)


def rows_product(x_RC: Tensor, weight_OC: Tensor, bias: Tensor | None) -> Tensor:
    """Return x · weightᵀ (+ bias), [R, O], in the dtype of x. The parameters may have another dtype, as under autocast.
    Differentiable once."""
    found: Tensor = _Rows.apply(x_RC, weight_OC, bias)
    return found


def weight_gradient(grad_RO: Tensor, x_RC: Tensor) -> Tensor:
    """Return gradᵀ · x, [O, C]."""
    rows = x_RC.shape[0]
    if x_RC.device.type == "cpu" and x_RC.dtype == torch.float32 and rows >= _LONG and rows % _BATCH == 0:
        grad, x = (m.view(_BATCH, rows // _BATCH, 1, -1).permute(0, 3, 1, 2) for m in (grad_RO, x_RC))
        weight = x.new_empty(grad.shape[1], x.shape[1], 1, 1)
        found: Tensor = torch.ops.aten.convolution_backward(
            grad, x, weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [False, True, False]
        )[1]
        return found.flatten(1)
    return linear(grad_RO.t(), x_RC.t())
