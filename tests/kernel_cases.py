"""The GPU kernels equal torch's operations. test_kernels.py runs these tests with TRITON_INTERPRET=1, so that every
kernel is in use on the CPU; `make gpu-check` runs them with CNNJEPA_KERNELS=on on a GPU."""

import copy

import pytest
import torch
from sparse_encoders import lively_backbone, random_context
from torch import Tensor, nn

from cnnjepa.encoders.norm_relu import norm_relu
from cnnjepa.kernels.batch_norm import batch_norm
from cnnjepa.kernels.gather import gather_sum
from cnnjepa.kernels.switch import interpreted
from cnnjepa.methods import StepDraw, build_method
from cnnjepa.schemas import load_config
from cnnjepa.sparse import ContextEncoder, MaskedEncoder, PackedEncoder
from cnnjepa.sparse.patch_grid import PaddedCells, PatchGrid
from cnnjepa.training.graphed_step import GraphedStep

DEVICE = "cpu" if interpreted() else "cuda"


@pytest.fixture(autouse=True)
def _full_float32() -> None:
    torch.backends.cudnn.allow_tf32 = False


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "c", "n", "k"), [(5, 3, 9, 1), (70, 130, 33, 4), (200, 300, 401, 1)])
def test_gathered_sums(dtype: torch.dtype, rows: int, c: int, n: int, k: int) -> None:
    source = torch.randn(rows, c).to(dtype)
    index = torch.randint(0, rows + (2 if k == 1 else 1), (n, k))
    table = torch.cat([source.double(), torch.zeros(1, c), torch.full((1, c), -3.0)]).double()
    expected = table[index].sum(1).to(DEVICE, dtype)
    source, index = source.to(DEVICE), index.to(DEVICE)
    rounding = 1e-6 if dtype == torch.float32 else 2**-7  # the interpreter cuts bf16 off instead of rounding it
    assert torch.allclose(gather_sum(source, index, outside=-3.0), expected, rtol=rounding, atol=1e-6)


def reference(norm: nn.BatchNorm2d, x: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
    out = norm(x)
    out = out if residual is None else out + residual
    return out.relu() if relu else out


@pytest.mark.parametrize(("n", "c", "p"), [(3, 5, 2), (7, 70, 3), (200, 3, 2), (2, 64, 1)])
@pytest.mark.parametrize(("relu", "residual"), [(False, False), (True, False), (True, True), (False, True)])
def test_batch_norm(n: int, c: int, p: int, relu: bool, residual: bool) -> None:
    """Outputs, all gradients and running statistics, against torch in float64; means far from zero."""
    x = (torch.randn(n, c, p, p) * 3 + 20).to(DEVICE, memory_format=torch.channels_last)
    other = torch.randn(n, c, p, p).to(DEVICE, memory_format=torch.channels_last) if residual else None
    upstream = torch.randn(n, c, p, p).to(DEVICE)
    ours, exact = nn.BatchNorm2d(c).to(DEVICE), nn.BatchNorm2d(c).to(DEVICE).double()
    nn.init.uniform_(ours.weight, 0.5, 1.5)
    nn.init.uniform_(ours.bias, -0.5, 0.5)
    exact.load_state_dict(ours.state_dict())
    found = []
    for norm, dtype in ((ours, torch.float32), (exact, torch.float64)):
        inputs = [t.detach().to(dtype).requires_grad_() for t in (x, other) if t is not None]
        a, b = inputs[0], inputs[1] if residual else None
        out = norm_relu(norm, nn.ReLU() if relu else None, a, b) if norm is ours else reference(norm, a, b, relu)
        (out * upstream.to(dtype)).sum().backward()
        found.append([out, *[t.grad for t in inputs], norm.weight.grad, norm.bias.grad, norm.running_mean,
                      norm.running_var])  # fmt: skip
        assert norm.num_batches_tracked == 1
    for value, expected in zip(*found, strict=True):
        assert value is not None and expected is not None
        worst = float((value.detach().double() - expected.detach()).abs().max())
        assert worst < 3e-4 * max(1.0, float(expected.detach().abs().max()))


def test_in_bf16_statistics_and_gradients_are_float32() -> None:
    x = (torch.randn(40, 6, 4, 4) + 5).to(DEVICE, torch.bfloat16).to(memory_format=torch.channels_last).requires_grad_()
    exact = x.detach().double().requires_grad_()
    out = norm_relu(nn.BatchNorm2d(6).to(DEVICE), None, x)
    expected = nn.functional.batch_norm(exact, None, None, training=True)
    for value in (out, expected):
        (value * torch.linspace(-1, 1, 16).view(4, 4).to(value)).sum().backward()
    assert out.dtype == torch.bfloat16 and x.grad is not None and exact.grad is not None
    assert torch.allclose(out.detach().double(), expected.detach(), rtol=2**-7, atol=1e-3)
    assert torch.allclose(x.grad.double(), exact.grad, rtol=2**-6, atol=1e-2)


def test_the_kernel_is_the_one_that_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr("cnnjepa.kernels.batch_norm.batch_norm", lambda *a: calls.append(a) or batch_norm(*a))
    norm, x = nn.BatchNorm2d(4).to(DEVICE), torch.randn(2, 4, 3, 3).to(DEVICE, memory_format=torch.channels_last)
    norm_relu(norm, nn.ReLU(), x)
    handle = norm.register_forward_hook(lambda *_: None)
    norm_relu(norm, nn.ReLU(), x)  # a hook must see the norm
    handle.remove()
    norm_relu(norm.eval(), nn.ReLU(), x)
    assert len(calls) == 1


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_the_packed_encoder_with_kernels_and_rounded_cells(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32, against the masked backend in float64. A value within rounding of zero may fall on the other side of
    a ReLU, which changes the gradients of so small a batch by percents: the best of three batches counts."""
    monkeypatch.setattr(PatchGrid, "__init__", rounding(PatchGrid.__init__))
    backbone = lively_backbone(arch=arch, width=0.125).to(DEVICE)
    worst = []
    for seed in (0, 2, 4):
        images = torch.randn(4, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        exact = outcome(MaskedEncoder(copy.deepcopy(backbone)), images.to(DEVICE), seed)
        found = outcome(PackedEncoder(copy.deepcopy(backbone).float()), images.to(DEVICE).float(), seed)
        worst.append(max(float((a.double() - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True)))
    assert min(worst) < 2e-3, worst


def outcome(encoder: ContextEncoder, pixels: Tensor, seed: int) -> list[Tensor]:
    """Features and all gradients."""
    features = encoder.to(memory_format=torch.channels_last)(pixels, random_context(4, 2, seed))
    features.square().sum().backward()
    return [features.detach(), *[p.grad for p in encoder.parameters() if p.grad is not None]]


def rounding(init: object) -> object:
    def with_more_cells(self: PatchGrid, *args: object) -> None:
        init(self, *args)  # type: ignore[operator]
        self.rounded = self.n + 3

    return with_more_cells


@pytest.mark.parametrize(("arch", "grid"), [("resnet18", (2, 3)), ("resnet50", (2, 2))])
def test_padding_changes_neither_outputs_nor_gradients_nor_statistics(arch: str, grid: tuple[int, int]) -> None:
    """With more cells than are visible, whose number the host does not know; against the exact number of cells."""
    backbone = lively_backbone(arch=arch, width=0.125).float().to(DEVICE)
    images = torch.randn(4, 3, 32 * grid[0], 32 * grid[1], device=DEVICE).to(memory_format=torch.channels_last)
    context = random_context(4, grid)
    plain, padded = (PackedEncoder(copy.deepcopy(backbone)).to(memory_format=torch.channels_last) for _ in range(2))
    cells = context.nonzero()
    more = torch.cat([cells, torch.zeros(5, 3, dtype=torch.int64)]).to(DEVICE)
    count = torch.tensor([cells.shape[0]], dtype=torch.int32, device=DEVICE)
    expected = plain(images, context)
    with padded.on_padded(PaddedCells(more, count)):
        found = padded(images, context.to(DEVICE))
    weight = torch.linspace(-1, 1, found.numel(), device=DEVICE).view_as(found)
    (expected * weight).sum().backward()
    (found * weight).sum().backward()
    assert float((found - expected).detach().abs().max()) < 1e-4 * float(expected.detach().abs().max())
    for (name, p), q in zip(padded.named_parameters(), plain.parameters(), strict=True):
        assert p.grad is not None and q.grad is not None
        assert float((p.grad - q.grad).norm() / q.grad.norm()) < 2e-3, name
    for (name, a), b in zip(padded.named_buffers(), plain.buffers(), strict=True):
        assert torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-6), name


def test_padded_cells_are_refused_where_the_kernel_does_not_compute() -> None:
    encoder = PackedEncoder(lively_backbone(arch="resnet18", width=0.125).to(DEVICE))
    cells = PaddedCells(
        torch.zeros(3, 3, dtype=torch.int64, device=DEVICE), torch.ones(1, dtype=torch.int32, device=DEVICE)
    )
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64, device=DEVICE)
    with encoder.on_padded(cells), pytest.raises(RuntimeError, match="need the batch norm kernel"):
        encoder(images, torch.ones(1, 2, 2, dtype=torch.bool, device=DEVICE))


def test_the_graphed_step_gives_the_gradients_of_the_plain_step() -> None:
    """Before a graph is captured: what a graph then repeats. Both use the kernels; only one pads."""
    small = ["arch=resnet18", "width=0.125", "image_size=96", "strategy=random", "runtime.batch_size=4"]
    config = load_config("in100", overrides=[*small, f"device={DEVICE}", "precision=float32"])
    method = build_method(config).to(DEVICE).train().to(memory_format=torch.channels_last)
    twin, graphed = copy.deepcopy(method), GraphedStep(method, config)
    images = torch.randn(4, 3, 96, 96, device=DEVICE).to(memory_format=torch.channels_last)
    inputs = method.inputs((images,), torch.zeros(4), StepDraw(config.grid, torch.arange(4), 0, 0))
    terms = method.terms(*inputs)
    found, expected = graphed(inputs, terms), twin(*inputs).total
    (expected / terms).backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    gradients = [(p.grad, q.grad) for p, q in zip(method.parameters(), twin.parameters(), strict=True)]
    assert [a is None for a, _ in gradients] == [b is None for _, b in gradients]
    assert all(float((a - b).norm()) <= 0.05 * float(b.norm()) for a, b in gradients if a is not None and b is not None)
