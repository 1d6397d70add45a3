"""Sums of gathered rows.

Shapes: R source rows and N output rows of C values, K sources at most for each output row.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

# Values per program.
_TILE = 4096


@triton.jit
def _gather_sum(source, index, out, n, rows, outside, C, K: tl.constexpr, N_TILE: tl.constexpr,
                C_TILE: tl.constexpr):  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * N_TILE + tl.arange(0, N_TILE)
    c = tl.program_id(1) * C_TILE + tl.arange(0, C_TILE)
    if K == 1:
        place = tl.load(index + i, mask=i < n, other=rows)
        found = tl.load(source + place[:, None] * C + c[None, :], mask=(place < rows)[:, None] & (c < C)[None, :],
                        other=0.0)  # fmt: skip
        found = tl.where((place == rows + 1)[:, None], outside, found.to(tl.float32)).to(out.dtype.element_ty)
        tl.store(out + i[:, None] * C + c[None, :], found, mask=(i < n)[:, None] & (c < C)[None, :])
    else:
        total = tl.zeros((N_TILE, C_TILE), tl.float32)
        for k in tl.static_range(K):
            place = tl.load(index + i * K + k, mask=i < n, other=rows)
            total += tl.load(source + place[:, None] * C + c[None, :], mask=(place < rows)[:, None] & (c < C)[None, :],
                             other=0.0).to(tl.float32)  # fmt: skip
        tl.store(out + i[:, None] * C + c[None, :], total.to(out.dtype.element_ty),
                 mask=(i < n)[:, None] & (c < C)[None, :])  # fmt: skip


def gather_sum(source_RC: Tensor, index_NK: Tensor, outside: float = 0.0) -> Tensor:
    """Return [N, C]: the sum of the source rows that `index_NK` names, in its order, accumulated in float32. Place R
    gives zero; place R + 1 gives `outside` (only with K = 1). The source is contiguous."""
    (rows, c), (n, k) = source_RC.shape, index_NK.shape
    assert source_RC.is_contiguous() and index_NK.is_contiguous()
    out = source_RC.new_empty(n, c)
    c_tile = min(triton.next_power_of_2(c), 256)
    n_tile = max(1, _TILE // c_tile // (2 if k > 1 else 1))
    grid = (triton.cdiv(n, n_tile), triton.cdiv(c, c_tile))
    with torch.cuda.device_of(out):
        _gather_sum[grid](source_RC, index_NK, out, n, rows, outside, c, k, n_tile, c_tile, num_warps=4)
    return out
