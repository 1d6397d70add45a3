"""Products by oneDNN against torch's own in float64."""

import pytest
import torch
import torch.nn.functional as F

from cnnjepa.tensor_ops.matmul import linear


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_linear_and_its_gradients_are_torchs(with_bias: bool, dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    given = [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in ((33, 70), (19, 70), (19,), (33, 19))]
    upstream = given.pop()
    found = []
    for function, kind in ((linear, dtype), (F.linear, torch.float64)):
        x, weight, bias = (tensor.to(kind).requires_grad_() for tensor in given)
        result = function(x, weight, bias if with_bias else None)
        result.backward(upstream.to(kind))
        found.append([result.detach(), x.grad, weight.grad] + ([bias.grad] if with_bias else []))
    for ours, theirs in zip(*found, strict=True):
        assert ours is not None and theirs is not None
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-4 if dtype == torch.float32 else 1e-12)


def test_linear_is_the_frameworks_under_autocast_for_more_axes_and_for_no_rows() -> None:
    x, weight = torch.randn(4, 6), torch.randn(5, 6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(linear(x, weight), F.linear(x, weight))
    assert torch.equal(linear(x[None], weight), F.linear(x[None], weight))
    assert linear(x[:0], weight).shape == (0, 5)


def test_operands_of_any_strides_give_the_same_product() -> None:
    x, weight = torch.randn(8, 2, 12)[:, 0, ::2], torch.randn(2, 6, 5).permute(2, 1, 0)[..., 1]
    torch.testing.assert_close(linear(x, weight), F.linear(x, weight), rtol=1e-5, atol=1e-5)
