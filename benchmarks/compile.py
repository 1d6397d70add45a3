"""Time that torch.compile saves, and how often it recompiles when the number of visible cells differs between steps.

Target (forward) and predictor (forward and backward) have fixed shapes: compiled and plain modules are timed
alternately, and so is the compilation. The packed encoder has another number of cells at every step, and its packed
layers are left out of graphs: the graphs between them are counted over steps of the published masks, with dynamic
shapes, by a backend that only counts.

    python benchmarks/compile.py                    # about 2 minutes on one thread
"""

import argparse
import copy
import os
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from figures import Figure, add_options, ratio, report
from passes import both_ways, forward
from step import images, published
from timing import alternately
from torch import Tensor, nn

from cnnjepa.measuring.step_timer import seconds
from cnnjepa.methods import build_method
from cnnjepa.methods.cnnjepa import CNNJEPA
from cnnjepa.training.distributed import Processes, pick_device
from cnnjepa.training.environment import environment

# Rounds, architecture, batch, steps whose graphs are counted.
_MODES = {"full": (7, "resnet50", 16, 12), "quick": (3, "resnet18", 8, 6), "tiny": (1, "resnet18", 2, 4)}
# The number of cells is free from the first step on; but where it happens to equal another size there, dynamo takes
# that for a rule and compiles anew when the second step breaks it. ResNet-18 at 64 px made 18 graphs at the first step,
# 0 to 8 at the second (8 where 64 cells met 64 channels), none later. So from the third step on none may be made.
_SETTLED = 2


class Counted:
    """A backend that compiles nothing and counts its calls."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, module: torch.fx.GraphModule, example: list[Tensor]) -> Callable[..., Any]:
        self.graphs += 1
        return module.forward


def graphs_by_step(method: CNNJEPA, pixels: Tensor, grid: int, steps: int) -> tuple[list[int], list[int]]:
    """(visible cells, graphs compiled) of every step's forward."""
    torch._dynamo.reset()
    torch._dynamo.config.recompile_limit = 1000  # beyond the usual 8 dynamo gives up, and nothing would be counted
    backend = Counted()
    encoder = torch.compile(method.context_encoder, backend=backend, dynamic=True)
    indices = torch.arange(pixels.shape[0])
    cells, graphs = [], []
    for step in range(steps):
        before = backend.graphs
        context = method.draw_masks(grid, indices, 0, step).context
        encoder(pixels, context)
        cells.append(int(context.sum()))
        graphs.append(backend.graphs - before)
    torch._dynamo.reset()
    return cells, graphs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=["float32", "bf16"], default="float32")
    parser.add_argument("--device", default="auto")
    add_options(parser)
    asked = parser.parse_args()
    asked.rounds, asked.arch, asked.batch, steps = _MODES[asked.mode]
    asked.size = 224
    config, device = published(asked), pick_device(asked.device)
    method = build_method(config).to(device).train()
    method.to(memory_format=torch.channels_last)
    assert isinstance(method, CNNJEPA)
    pixels = images(config, device)

    cells, graphs = graphs_by_step(method, pixels, config.grid, steps)
    print(f"visible cells of {steps} steps: {cells}\ngraphs compiled at each: {graphs}")

    features = torch.randn(asked.batch, method.feature_dim, config.grid, config.grid, device=device)
    features = features.contiguous(memory_format=torch.channels_last)

    # An empty cache: kernels that an earlier run compiled would make compiling look quick.
    cache = tempfile.TemporaryDirectory()
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache.name
    backend = "inductor" if asked.mode != "tiny" else "eager"
    works: dict[str, tuple[nn.Module, Callable[[nn.Module], Callable[[], None]]]] = {
        "target, forward": (method.target_encoder, lambda network: forward(network, pixels, asked.precision)),
        "predictor": (method.predictor, lambda network: both_ways(network, (features,), asked.precision)),
    }
    figures, details = [], {"cells": cells, "graphs": graphs}
    for name, (network, work) in works.items():
        compiled = work(torch.compile(copy.deepcopy(network), backend=backend))
        first = seconds(compiled, device)
        times = alternately({"plain": work(network), "compiled": compiled}, asked.rounds, device)
        note = f"{asked.arch}, batch {asked.batch}, {asked.precision}, backend {backend}"
        figures.append(ratio(f"{name}, compiled / plain", times["compiled"], times["plain"], note=note))
        figures.append(Figure(f"{name}, compiling", first, unit="s"))
        details[name] = times
    figures.append(Figure("packed encoder, graphs of the first two steps", sum(graphs[:_SETTLED]), n=_SETTLED))
    figures.append(
        Figure("packed encoder, graphs compiled later", sum(graphs[_SETTLED:]), target=0, direction="at_most",
               n=steps - _SETTLED, note=f"{len(set(cells))} numbers of cells in {steps} steps, dynamic shapes")
    )  # fmt: skip
    report("compile", asked, environment(Processes(0, 1, device)), figures, details)


if __name__ == "__main__":
    main()
