"""Two processes do what one does with the two shards one after the other."""

import json
import os
import socket
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import SERVER, in_process, small_config

from cnnjepa.schemas import PretrainConfig
from cnnjepa.training.checkpoint import read_checkpoint

pytestmark = [pytest.mark.processes]

# Three optimiser steps of a global batch of 32.
STEPS = ("train_images=96", "epochs=1", "warmup_epochs=0", "log_every_steps=1", "checkpoint_every_steps=1")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def train_keeping_gradients(config: PretrainConfig, run: Path, rank: int, world_size: int, port: int) -> None:
    from cnnjepa.training import pretrain as module

    torch.set_num_threads(1)
    warnings.simplefilter("error")  # of deprecated arguments, and of gradients that DDP has to copy
    if world_size > 1:
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
    gradients: list[dict[str, torch.Tensor]] = []
    original = module.train_step

    def watched(model: Any, optimizer: Any, *rest: Any) -> torch.Tensor:
        def keep(*_: Any) -> None:
            named = (model.module if world_size > 1 else model).named_parameters()
            gradients.append({name: p.grad.clone() for name, p in named if p.grad is not None})

        handle = optimizer.register_step_pre_hook(keep)
        loss = original(model, optimizer, *rest)
        handle.remove()
        return loss

    module.train_step = watched
    module.pretrain(config, run)
    torch.save(gradients, run.with_name(f"{run.name}-gradients-{rank}.pt"))


def run_two(config: PretrainConfig, run: Path, work: Any = train_keeping_gradients) -> None:
    port = free_port()
    processes = [SERVER.Process(target=work, args=(config, run, r, 2, port)) for r in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(180)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0, 0]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("two") / "run"
    run_two(small_config(*STEPS, "runtime.batch_size=16"), run)
    return run


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("one") / "run"
    config = small_config(*STEPS, "runtime.batch_size=32", "accumulation=2")
    assert in_process(train_keeping_gradients, config, run, 0, 1, 0) == 0
    return run


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["kind"] == "train"]


def test_loss_gradients_and_weights_equal_one_process_over_both_shards(two: Path, one: Path) -> None:
    assert len(losses(two)) == 3
    assert losses(two) == pytest.approx(losses(one), abs=1e-6)
    ours, theirs, expected = (
        torch.load(run.with_name(f"run-gradients-{rank}.pt"), weights_only=True)
        for run, rank in ((two, 0), (two, 1), (one, 0))
    )
    for step in range(3):
        assert ours[step].keys() == expected[step].keys() != set()
        for name, gradient in expected[step].items():
            torch.testing.assert_close(ours[step][name], gradient, atol=1e-6, rtol=0)
            assert torch.equal(ours[step][name], theirs[step][name])
    weights = [read_checkpoint(run / "checkpoints" / "last.pt")["method"] for run in (two, one)]
    for name, value in weights[1].items():
        if "running" not in name and "num_batches" not in name:  # per process, as documented
            torch.testing.assert_close(weights[0][name], value, atol=1e-6, rtol=0)


def test_the_two_runs_are_named_differently_and_say_their_world(two: Path, one: Path) -> None:
    results = [json.loads((run / "result.json").read_text()) for run in (two, one)]
    assert results[0]["pretrain_hash"] != results[1]["pretrain_hash"]
    assert [json.loads((run / "environment.json").read_text())["world_size"] for run in (two, one)] == [2, 1]
    assert read_checkpoint(two / "checkpoints" / "last.pt")["settings"]["global_batch"] == 32


def test_a_distributed_run_resumes_from_its_checkpoint(two: Path, tmp_path: Path) -> None:
    import shutil

    run = tmp_path / "run"
    shutil.copytree(two, run)
    (run / "result.json").unlink()
    last = run / "checkpoints" / "last.pt"
    last.unlink()
    (run / "checkpoints" / "previous.pt").rename(last)
    port = free_port()
    config = small_config(*STEPS, "runtime.batch_size=16")
    processes = [SERVER.Process(target=resume, args=(config, run, rank, port)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(180)
    assert [process.exitcode for process in processes] == [0, 0]
    assert losses(run) == losses(two)
    weights = [read_checkpoint(r / "checkpoints" / "last.pt")["method"] for r in (run, two)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def resume(config: PretrainConfig, run: Path, rank: int, port: int) -> None:
    from cnnjepa.training.pretrain import pretrain

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    pretrain(config, run, resume=True)


def test_a_refusal_reaches_every_process(one: Path) -> None:
    port = free_port()
    config = small_config(*STEPS, "runtime.batch_size=16")
    processes = [SERVER.Process(target=expect_refusal, args=(config, one, rank, port)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]


def expect_refusal(config: PretrainConfig, run: Path, rank: int, port: int) -> None:
    from cnnjepa.schemas import ConfigError
    from cnnjepa.training.pretrain import pretrain

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with pytest.raises(ConfigError, match="finished run"):
        pretrain(config, run)
