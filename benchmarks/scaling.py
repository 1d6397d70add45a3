"""One process against two: images per second, and the same loss at the same global batch.

Every process has one thread and, with --cpus, a core of its own; they speak by gloo, as the training loop's processes
do. Both runs make the same steps alternately: one process takes the global batch in two parts (`runtime.accumulation`),
because batch-norm statistics are a process's, so that its losses are those of two processes to float32 rounding.
Efficiency is images/s of n processes / (n x images/s of one).

    python benchmarks/scaling.py --cpus 0,1
    python benchmarks/scaling.py --cpus 1           # both on one core: shows that it runs, says nothing of speed
"""

import argparse
import multiprocessing
import os
import socket
import statistics
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch
from figures import Figure, add_options, median, ratio, report
from torch.nn.parallel import DistributedDataParallel

from cnnjepa.measuring.step_timer import seconds
from cnnjepa.methods import StepDraw, build_method
from cnnjepa.schemas import PretrainConfig, load_config
from cnnjepa.training import distributed
from cnnjepa.training.distributed import Processes
from cnnjepa.training.environment import environment
from cnnjepa.training.optimizer import build_optimizer
from cnnjepa.training.step import train_step

# Relative difference allowed between the losses of the first step, and of all: float32 sums in another order, grown by
# AdamW, whose first updates are of the learning rate's size whatever the gradient.
SAME_FIRST, SAME_ALL = 1e-5, 1e-2
# Rounds, architecture, image side in pixels, global batch.
_MODES = {"full": (9, "resnet50", 224, 16), "quick": (3, "resnet18", 224, 16), "tiny": (1, "resnet18", 224, 4)}


class Group(NamedTuple):
    """Processes that train together."""

    pipes: list[Connection]
    processes: list[Any]


def config_of(asked: argparse.Namespace, world_size: int) -> PretrainConfig:
    parts = max(asked.processes) // world_size
    return load_config(
        "in100",
        overrides=[
            f"encoder.arch={asked.arch}", f"data.image_size={asked.size}", "runtime.precision=float32",
            f"runtime.batch_size={asked.batch // world_size}", f"runtime.accumulation={parts}", "runtime.device=cpu",
            "runtime.threads=1",
        ],
    )  # fmt: skip


def serve(pipe: Connection, asked: argparse.Namespace, rank: int, world_size: int, port: int) -> None:
    """Makes a step for every number received and answers (seconds, loss); a closed pipe ends it."""
    if asked.cpus:
        os.sched_setaffinity(0, {asked.cpus[rank % len(asked.cpus)]})
    if world_size > 1:
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
    config = config_of(asked, world_size)
    processes = distributed.join(config.runtime)
    method = build_method(config).train()
    method.to(memory_format=torch.channels_last)
    optimizer = build_optimizer(method, config.optimizer)
    for group in optimizer.param_groups:
        group["lr"] = 1e-4
    model = DistributedDataParallel(method, broadcast_buffers=False) if world_size > 1 else method
    share = config.runtime.batch_size
    indices = torch.arange(rank * share, (rank + 1) * share)

    def make(step: int, losses: list[float]) -> None:
        draw = torch.Generator().manual_seed(step)
        images = torch.randn(asked.batch, 3, asked.size, asked.size, generator=draw)[indices]
        images = images.contiguous(memory_format=torch.channels_last)
        inputs = method.inputs((images,), indices, StepDraw(config.grid, indices, 0, step))
        method.follow(0.99)
        losses.append(float(train_step(model, optimizer, inputs, config, processes).loss))

    try:
        while True:
            try:
                step = pipe.recv()
            except EOFError:
                return
            losses: list[float] = []
            taken = seconds(lambda s=step, found=losses: make(s, found), processes.device)
            pipe.send((taken, losses[0]))
    finally:
        distributed.leave()


def start(asked: argparse.Namespace, world_size: int) -> Group:
    context = multiprocessing.get_context("spawn")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    group = Group([], [])
    for rank in range(world_size):
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, asked, rank, world_size, port), daemon=True)
        process.start()
        theirs.close()
        group.pipes.append(ours)
        group.processes.append(process)
    return group


def step(group: Group, number: int) -> tuple[float, float]:
    """(seconds of the slowest process, loss)."""
    for pipe in group.pipes:
        pipe.send(number)
    answers = [pipe.recv() for pipe in group.pipes]
    return max(taken for taken, _ in answers), answers[0][1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2])
    parser.add_argument("--cpus", type=lambda text: [int(n) for n in text.split(",")], default=[],
                        help="cores, dealt out in turn; default: the system decides")  # fmt: skip
    parser.add_argument("--arch")
    parser.add_argument("--size", type=int, help="side length in pixels")
    parser.add_argument("--batch", type=int, help="global")
    parser.add_argument("--rounds", type=int)
    add_options(parser)
    asked = parser.parse_args()
    for name, usual in zip(("rounds", "arch", "size", "batch"), _MODES[asked.mode], strict=True):
        if getattr(asked, name) is None:
            setattr(asked, name, usual)
    if asked.batch % max(asked.processes) or any(max(asked.processes) % n for n in asked.processes):
        parser.error("--processes must divide each other and the global --batch, so that the parts are the same")

    groups = {n: start(asked, n) for n in asked.processes}
    times: dict[int, list[float]] = {n: [] for n in groups}
    losses: dict[int, list[float]] = {n: [] for n in groups}
    for number in range(asked.rounds + 1):
        for n, group in groups.items():
            taken, loss = step(group, number)
            losses[n].append(loss)
            if number:
                times[n].append(taken)
    for group in groups.values():
        for pipe in group.pipes:
            pipe.close()
        for process in group.processes:
            process.join(10)
            process.kill()

    cores = len(set(asked.cpus) or os.sched_getaffinity(0))
    fewest, most = min(groups), max(groups)
    note = f"{asked.arch}, {asked.size} px, global batch {asked.batch}, one thread a process, {cores} cores"
    figures = [
        median(f"images/s, {n} process{'es' if n > 1 else ''}", [asked.batch / t for t in times[n]], unit="images/s",
               note=note)
        for n in groups
    ]  # fmt: skip
    enough = cores >= most
    figures.append(
        ratio(
            f"efficiency of {most} processes", times[fewest], times[most], fewest / most,
            target=0.9 if enough else None, direction="at_least" if enough else None,
            note=note if enough else f"{most} processes on {cores} core: no figure of speed",
        )
    )  # fmt: skip
    apart = [abs(a - b) / abs(a) for a, b in zip(losses[fewest], losses[most], strict=True)]
    figures += [
        Figure("losses apart, first step", apart[0], "", SAME_FIRST, "at_most", note="relative, at equal global batch"),
        Figure("losses apart, all steps", max(apart), "", SAME_ALL, "at_most", n=len(apart), note="largest, relative"),
    ]
    facts = environment(Processes(0, 1, torch.device("cpu")))
    named = {str(n): {"seconds": times[n], "losses": losses[n], "median": statistics.median(times[n])} for n in groups}
    report("scaling", asked, facts, figures, {"processes": named, "cores": cores})


if __name__ == "__main__":
    main()
