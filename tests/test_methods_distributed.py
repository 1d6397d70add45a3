"""Two processes on halves of a batch give what one gives on the whole: losses, gradients, batch norm; float64."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import SERVER
from test_distributed import free_port
from torch import Tensor, nn

from cnnjepa.methods.simclr import nt_xent
from cnnjepa.methods.synchronised import GatheredBatchNorm, synchronise
from cnnjepa.schemas import load_config

ROWS = 4  # of each process


def in_two(work: Any, *arguments: Any) -> None:
    port = free_port()
    processes = [SERVER.Process(target=joined, args=(work, rank, port, arguments)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0, 0]


def joined(work: Any, rank: int, port: int, arguments: tuple[Any, ...]) -> None:
    import torch.distributed as dist

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo")
    work(rank, *arguments)
    dist.destroy_process_group()


def own(whole: Tensor, rank: int) -> Tensor:
    return whole[rank * ROWS : (rank + 1) * ROWS]


def views(width: int = 6) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(2)
    return (
        torch.randn(2 * ROWS, width, generator=g, dtype=torch.float64),
        torch.randn(2 * ROWS, width, generator=g, dtype=torch.float64),
    )


def gathered_nt_xent(rank: int, folder: Path) -> None:
    mine = [own(view, rank).clone().requires_grad_() for view in views()]
    total = nt_xent(mine[0], mine[1], 0.1)
    total.backward()
    torch.save((total.detach(), [view.grad for view in mine]), folder / f"{rank}.pt")


@pytest.mark.processes
def test_gathered_nt_xent_equals_one_process_on_the_joined_batch(tmp_path: Path) -> None:
    in_two(gathered_nt_xent, tmp_path)
    whole = [view.requires_grad_() for view in views()]
    expected = nt_xent(whole[0], whole[1], 0.1)
    expected.backward()
    (first, first_grads), (second, second_grads) = (torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in (0, 1))
    torch.testing.assert_close(first + second, expected.detach(), rtol=1e-12, atol=0)
    for view, above, below in zip(whole, first_grads, second_grads, strict=True):
        torch.testing.assert_close(torch.cat([above, below]), view.grad, rtol=1e-10, atol=1e-14)


def normed(norm: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    """(output, input's gradient, parameters' gradients and running statistics) under a loss that is no mean."""
    x = x.clone().requires_grad_()
    out = norm(x)
    (
        out * torch.linspace(0, 1, out.shape[1], dtype=out.dtype).view(1, -1, *[1] * (out.dim() - 2))
    ).square().sum().backward()
    rest = [p.grad for p in norm.parameters()] + [b.double() for b in norm.buffers()]
    return out.detach(), x.grad, rest  # type: ignore[return-value]


def maps() -> Tensor:
    return 3 + 2 * torch.randn(2 * ROWS, 5, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def plain_norm() -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(5).double()
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 1.5, 5))
    return norm


def gathered_norm(rank: int, folder: Path) -> None:
    torch.save(normed(GatheredBatchNorm.of(plain_norm()), own(maps(), rank)), folder / f"{rank}.pt")


@pytest.mark.processes
def test_the_gathered_batch_norm_is_the_ordinary_one_on_the_joined_batch(tmp_path: Path) -> None:
    in_two(gathered_norm, tmp_path)
    out, grad, rest = normed(plain_norm(), maps())
    found = [torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in (0, 1)]
    torch.testing.assert_close(torch.cat([f[0] for f in found]), out, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.cat([f[1] for f in found]), grad, rtol=1e-9, atol=1e-10)
    for place, expected in enumerate(rest):
        ours = [f[2][place] for f in found]
        whole = sum(ours) if place < 2 else ours[0]  # gradients add up, statistics are everybody's
        torch.testing.assert_close(whole, expected, rtol=1e-10, atol=1e-10)
        assert place < 2 or torch.equal(ours[0], ours[1])


def test_one_process_and_evaluation_need_no_other() -> None:
    for training in (True, False):
        norm = plain_norm().train(training)
        assert torch.equal(GatheredBatchNorm.of(norm)(maps()), norm(maps()))


def test_synchronising_keeps_parameters_and_their_names() -> None:
    from cnnjepa.methods import build_method

    method = build_method(load_config("smoke", overrides=["method.name=simclr"]))
    before = dict(method.named_parameters())
    state = list(method.state_dict())
    synchronise(method, torch.device("cpu"))
    assert {name: id(p) for name, p in before.items()} == {name: id(p) for name, p in method.named_parameters()}
    assert list(method.state_dict()) == state
    assert not any(type(m) in (nn.BatchNorm1d, nn.BatchNorm2d) for m in method.modules())


STEPS = ("train_images=96", "epochs=1", "warmup_epochs=0", "log_every_steps=1", "checkpoint_every_steps=1")


@pytest.mark.processes
@pytest.mark.parametrize("name", ["simclr", "byol", "lejepa", "spark"])
def test_a_two_process_run_is_the_one_process_run(name: str, tmp_path: Path) -> None:
    """Through the loop: views, SyncBN's equivalent, gathering, gradients, LARS. Global batch 32, float32."""
    from runs import in_process, small_config
    from test_distributed import losses, run_two, train_keeping_gradients

    heads = () if name == "spark" else ("hidden_dim=32", "output_dim=16")
    asked = (*STEPS, f"method.name={name}", "optimizer.name=lars", "optimizer.lr=0.3", *heads)
    run_two(small_config(*asked, "runtime.batch_size=16"), tmp_path / "two")
    one = small_config(*asked, "runtime.batch_size=32")
    assert in_process(train_keeping_gradients, one, tmp_path / "one", 0, 1, 0) == 0
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=2e-4)
    ours, theirs = (torch.load(tmp_path / f"{r}-gradients-0.pt", weights_only=True)[0] for r in ("two", "one"))
    scale = max(float(gradient.abs().max()) for gradient in theirs.values())
    for key, gradient in theirs.items():
        assert float((ours[key] - gradient).abs().max()) < 1e-4 * scale, key  # float32
    states = [torch.load(tmp_path / r / "checkpoints" / "last.pt", weights_only=True)["method"] for r in ("two", "one")]
    for key, value in states[1].items():
        torch.testing.assert_close(
            states[0][key], value, rtol=1e-2, atol=2e-3, msg=lambda text, key=key: f"{key} {text}"
        )
