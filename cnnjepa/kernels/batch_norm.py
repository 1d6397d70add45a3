"""Batch norm in training, with the sum with a residual and the ReLU that follow it.

Shapes: R rows (pixels of all samples) of C channels, S parts of the rows that are reduced separately. Statistics are
float32 and deterministic: parts are merged in their order (Chan, Golub and LeVeque, 1983).
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

_ROWS, _CHANNELS = 64, 64  # of a tile
_MOST_PARTS = 264


@triton.jit
def _merge(count, mean, square, count_b, mean_b, square_b):
    total = count + count_b
    share = tl.where(total > 0, count_b / tl.maximum(total, 1.0), 0.0)
    away = mean_b - mean
    return total, mean + away * share, square + square_b + away * away * count * share


@triton.jit
def _real_rows(counted, rows, per_count, COUNTED: tl.constexpr):
    """Number of rows that count; those after them are padding."""
    if COUNTED:
        return tl.load(counted) * per_count
    return rows


@triton.jit
def _part_statistics(x, means, squares, counted, rows, per_count, per_part, C, COUNTED: tl.constexpr,
                     ROWS: tl.constexpr, CHANNELS: tl.constexpr):  # fmt: skip
    part = tl.program_id(0)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    real_rows = _real_rows(counted, rows, per_count, COUNTED)
    first = part.to(tl.int64) * per_part
    last = tl.minimum(first + per_part, real_rows)
    count = 0.0
    mean = tl.zeros((CHANNELS,), tl.float32)
    square = tl.zeros((CHANNELS,), tl.float32)
    for start in range(first, last, ROWS):
        r = start + tl.arange(0, ROWS)
        real = (r < last)[:, None] & (c < C)[None, :]
        value = tl.load(x + r[:, None] * C + c[None, :], mask=real, other=0.0).to(tl.float32)
        here = tl.minimum(last - start, ROWS).to(tl.float32)
        middle = tl.sum(value, 0) / here
        away = tl.where(real, value - middle[None, :], 0.0)
        count, mean, square = _merge(count, mean, square, here, middle, tl.sum(away * away, 0))
    tl.store(means + part * C + c, mean, mask=c < C)
    tl.store(squares + part * C + c, square, mask=c < C)


@triton.jit
def _merge_parts(means, squares, mean_out, deviation_out, running_mean, running_var, counted, rows, per_count, per_part,
                 parts, eps, share, C, COUNTED: tl.constexpr, TRACKS: tl.constexpr,
                 CHANNELS: tl.constexpr):  # fmt: skip
    c = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    real_rows = _real_rows(counted, rows, per_count, COUNTED)
    count = 0.0
    mean = tl.zeros((CHANNELS,), tl.float32)
    square = tl.zeros((CHANNELS,), tl.float32)
    for part in range(parts):
        here = tl.maximum(tl.minimum(real_rows - part * per_part, per_part), 0).to(tl.float32)
        mean_b = tl.load(means + part * C + c, mask=c < C, other=0.0)
        square_b = tl.load(squares + part * C + c, mask=c < C, other=0.0)
        count, mean, square = _merge(count, mean, square, here, mean_b, square_b)
    tl.store(mean_out + c, mean, mask=c < C)
    tl.store(deviation_out + c, 1.0 / tl.sqrt(square / count + eps), mask=c < C)
    if TRACKS:
        old = tl.load(running_mean + c, mask=c < C)
        tl.store(running_mean + c, old + share * (mean - old), mask=c < C)
        old = tl.load(running_var + c, mask=c < C)
        tl.store(running_var + c, old + share * (square / (count - 1.0) - old), mask=c < C)


@triton.jit
def _normalise(x, residual, y, mean, deviation, weight, bias, counted, rows, per_count, C, COUNTED: tl.constexpr,
               RESIDUAL: tl.constexpr, RELU: tl.constexpr, ROWS: tl.constexpr,
               CHANNELS: tl.constexpr):  # fmt: skip
    r = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    real_rows = _real_rows(counted, rows, per_count, COUNTED)
    real, at = (r < real_rows)[:, None] & (c < C)[None, :], r[:, None] * C + c[None, :]
    w = tl.load(weight + c, mask=c < C).to(tl.float32)[None, :]
    b = tl.load(bias + c, mask=c < C).to(tl.float32)[None, :]
    value = tl.load(x + at, mask=real, other=0.0).to(tl.float32)
    m, d = tl.load(mean + c, mask=c < C)[None, :], tl.load(deviation + c, mask=c < C)[None, :]
    value = (value - m) * d * w + b
    if RESIDUAL:
        other = tl.load(residual + at, mask=real, other=0.0).to(tl.float32)
        value = value.to(y.dtype.element_ty).to(tl.float32) + other  # torch rounds the norm's output before the sum
    if RELU:
        value = tl.where(value > 0, value, 0.0)
    if COUNTED:
        value = tl.where(real, value, 0.0)
    tl.store(y + at, value.to(y.dtype.element_ty), mask=(r < rows)[:, None] & (c < C)[None, :])


@triton.jit
def _part_sums(grad, x, y, through, sums, products, mean, deviation, weight, bias, counted, rows, per_count, per_part,
               C, COUNTED: tl.constexpr, RESIDUAL: tl.constexpr, RELU: tl.constexpr, ROWS: tl.constexpr,
               CHANNELS: tl.constexpr):  # fmt: skip
    part = tl.program_id(0)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    real_rows = _real_rows(counted, rows, per_count, COUNTED)
    first = part.to(tl.int64) * per_part
    last = tl.minimum(first + per_part, rows)
    m, d = tl.load(mean + c, mask=c < C)[None, :], tl.load(deviation + c, mask=c < C)[None, :]
    w = tl.load(weight + c, mask=c < C).to(tl.float32)[None, :]
    b = tl.load(bias + c, mask=c < C).to(tl.float32)[None, :]
    total = tl.zeros((CHANNELS,), tl.float32)
    product = tl.zeros((CHANNELS,), tl.float32)
    for start in range(first, last, ROWS):
        r = start + tl.arange(0, ROWS)
        inside, at = (r < last)[:, None] & (c < C)[None, :], r[:, None] * C + c[None, :]
        real = inside & (r < real_rows)[:, None]
        g = tl.load(grad + at, mask=real, other=0.0).to(tl.float32)
        scaled = (tl.load(x + at, mask=real, other=0.0).to(tl.float32) - m) * d
        if RELU:
            if RESIDUAL:
                g = tl.where(tl.load(y + at, mask=real, other=0.0) > 0, g, 0.0)
                tl.store(through + at, g.to(through.dtype.element_ty), mask=inside)
            else:
                g = tl.where(scaled * w + b > 0, g, 0.0)
        total += tl.sum(g, 0)
        product += tl.sum(tl.where(real, g * scaled, 0.0), 0)
    tl.store(sums + part * C + c, total, mask=c < C)
    tl.store(products + part * C + c, product, mask=c < C)


@triton.jit
def _through_norm(grad, x, grad_x, mean, deviation, weight, bias, sums, products, counted, rows, per_count, C,
                  COUNTED: tl.constexpr, MASKED: tl.constexpr, ROWS: tl.constexpr,
                  CHANNELS: tl.constexpr):  # fmt: skip
    r = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    real_rows = _real_rows(counted, rows, per_count, COUNTED)
    real, at = (r < real_rows)[:, None] & (c < C)[None, :], r[:, None] * C + c[None, :]
    m, d = tl.load(mean + c, mask=c < C)[None, :], tl.load(deviation + c, mask=c < C)[None, :]
    w = tl.load(weight + c, mask=c < C).to(tl.float32)[None, :]
    b = tl.load(bias + c, mask=c < C).to(tl.float32)[None, :]
    total = tl.load(sums + c, mask=c < C)[None, :] / real_rows
    product = tl.load(products + c, mask=c < C)[None, :] / real_rows
    g = tl.load(grad + at, mask=real, other=0.0).to(tl.float32)
    scaled = (tl.load(x + at, mask=real, other=0.0).to(tl.float32) - m) * d
    if MASKED:
        g = tl.where(scaled * w + b > 0, g, 0.0)
    value = (g - total - scaled * product) * d * w
    if COUNTED:
        value = tl.where(real, value, 0.0)
    tl.store(grad_x + at, value.to(grad_x.dtype.element_ty), mask=(r < rows)[:, None] & (c < C)[None, :])


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        residual: Tensor | None,
        running: tuple[Tensor, Tensor] | None,
        share: float,
        eps: float,
        relu: bool,
        counted: Tensor | None,
        per_count: int,
    ) -> Tensor:
        (rows, c), y = x.shape, torch.empty_like(x)
        count, is_counted = x if counted is None else counted, counted is not None
        per_part, parts = _parts(rows, c)
        means, squares = x.new_empty(2, parts, c, dtype=torch.float32)
        mean, deviation = x.new_empty(2, c, dtype=torch.float32)
        tracked = running or (mean, mean)
        with torch.cuda.device_of(x):
            _part_statistics[(parts, _over(c))](
                x, means, squares, count, rows, per_count, per_part, c, is_counted, _ROWS, _CHANNELS, num_warps=4
            )
            _merge_parts[(triton.cdiv(c, 32),)](
                means, squares, mean, deviation, *tracked, count, rows, per_count, per_part, parts, eps, share, c,
                is_counted, running is not None, 32, num_warps=1,
            )  # fmt: skip
            _normalise[(triton.cdiv(rows, _ROWS), _over(c))](
                x, x if residual is None else residual, y, mean, deviation, weight, bias, count, rows, per_count, c,
                is_counted, residual is not None, relu, _ROWS, _CHANNELS, num_warps=4,
            )  # fmt: skip
        ctx.relu, ctx.residual, ctx.counted, ctx.per_count = relu, residual is not None, counted, per_count
        ctx.save_for_backward(x, weight, bias, mean, deviation, *([y] if relu and ctx.residual else []))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, deviation, *outputs = ctx.saved_tensors
        grad = grad.contiguous()
        rows, c = x.shape
        per_part, parts = _parts(rows, c)
        both = x.new_empty(2, parts, c, dtype=torch.float32)
        sums, products = both
        count, is_counted = x if ctx.counted is None else ctx.counted, ctx.counted is not None
        by_output = bool(outputs)
        through = torch.empty_like(grad) if by_output else grad
        grad_x = torch.empty_like(x)
        masked = ctx.relu and not by_output
        with torch.cuda.device_of(x):
            _part_sums[(parts, _over(c))](
                grad, x, outputs[0] if by_output else x, through, sums, products, mean, deviation, weight, bias, count,
                rows, ctx.per_count, per_part, c, is_counted, by_output, ctx.relu, _ROWS, _CHANNELS, num_warps=4,
            )  # fmt: skip
            total, product = both.sum(1)
            _through_norm[(triton.cdiv(rows, _ROWS), _over(c))](
                through, x, grad_x, mean, deviation, weight, bias, total, product, count, rows, ctx.per_count, c,
                is_counted, masked, _ROWS, _CHANNELS, num_warps=4,
            )  # fmt: skip
        residual = through if ctx.residual else None
        return grad_x, product.to(weight.dtype), total.to(bias.dtype), residual, *[None] * 6


def _over(c: int) -> int:
    return int(triton.cdiv(c, _CHANNELS))


def _parts(rows: int, c: int) -> tuple[int, int]:
    """Return (rows per part, parts): enough programs for a large GPU, each with several tiles."""
    wanted = max(1, min(_MOST_PARTS, triton.cdiv(1024, _over(c)), triton.cdiv(rows, 4 * _ROWS)))
    per_part = triton.cdiv(triton.cdiv(rows, wanted), _ROWS) * _ROWS
    return per_part, int(triton.cdiv(rows, per_part))


def batch_norm(
    x_RC: Tensor,
    weight_C: Tensor,
    bias_C: Tensor,
    running: tuple[Tensor, Tensor] | None,
    share: float,
    eps: float,
    residual_RC: Tensor | None = None,
    relu: bool = False,
    counted: Tensor | None = None,
    per_count: int = 1,
) -> Tensor:
    """Return relu(norm(x) + residual), [R, C], in the dtype of x, with the statistics of these rows. `running` (mean
    and unbiased variance) moves towards them by `share`. Differentiable once. x and residual are contiguous; R > 1.

    With `counted` (int32, one value, on the GPU), only the first counted x per_count rows count: the others are
    padding, whose outputs and gradients are zero."""
    found: Tensor = _Norm.apply(x_RC, weight_C, bias_C, residual_RC, running, share, eps, relu, counted, per_count)
    return found
