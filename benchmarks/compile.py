"""What torch.compile saves, and how often it compiles again when the number of visible cells differs from step to step.

Target (forward) and predictor (forward and backward) have fixed shapes: compiled against plain, in turns, and the
seconds that compiling takes. The packed encoder has another number of cells at every step: its graphs are counted over
steps of the published masks, with dynamic shapes, by a backend that only counts.

    python benchmarks/compile.py                    # about 4 minutes on one thread
"""

import argparse
import copy
from collections.abc import Callable
from typing import Any

import torch
from figures import Figure, add_options, ratio, report
from step import images, published
from timing import alternately
from torch import Tensor, nn

from cnnjepa.methods import build_method
from cnnjepa.methods.cnnjepa import CNNJEPA
from cnnjepa.step_timer import seconds
from cnnjepa.training.distributed import Processes, pick_device
from cnnjepa.training.environment import environment

# Rounds, architecture, batch, steps whose graphs are counted.
_MODES = {"full": (7, "resnet50", 16, 12), "quick": (3, "resnet18", 8, 6), "tiny": (1, "resnet18", 2, 2)}
# Graphs that may be compiled for a packed encoder, however many steps: a first one of fixed and one of free size for
# every frame that dynamo makes of it would be bounded; a new one every step or two is not.
_MOST_AGAIN = 2


class Counted:
    """A backend that compiles nothing and counts what it is asked for."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, module: torch.fx.GraphModule, example: list[Tensor]) -> Callable[..., Any]:
        self.graphs += 1
        return module.forward


def graphs_by_step(method: CNNJEPA, pixels: Tensor, grid: int, steps: int) -> tuple[list[int], list[int]]:
    """(visible cells, graphs compiled) of every step's forward."""
    torch._dynamo.reset()
    backend = Counted()
    encoder = torch.compile(method.context_encoder, backend=backend, dynamic=True)
    slots = torch.arange(pixels.shape[0], device=pixels.device)
    cells, graphs = [], []
    for step in range(steps):
        before = backend.graphs
        context = method.draw_masks(grid, slots, 0, step).context
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

    def forward(network: nn.Module) -> Callable[[], object]:
        def work() -> None:
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=asked.precision == "bf16"):
                network(pixels)

        return work

    def both_ways(network: nn.Module) -> Callable[[], object]:
        def work() -> None:
            with torch.autocast(device.type, torch.bfloat16, enabled=asked.precision == "bf16"):
                found = network(features)
            found.float().square().mean().backward()
            network.zero_grad(set_to_none=True)

        return work

    backend = "inductor" if asked.mode != "tiny" else "eager"
    kinds = {"target, forward": (method.target_encoder, forward), "predictor": (method.predictor, both_ways)}
    figures, details = [], {"cells": cells, "graphs": graphs}
    for name, (network, work) in kinds.items():
        compiled = work(torch.compile(copy.deepcopy(network), backend=backend))
        first = seconds(compiled, device)
        times = alternately({"plain": work(network), "compiled": compiled}, asked.rounds, device)
        note = f"{asked.arch}, batch {asked.batch}, {asked.precision}, backend {backend}"
        figures.append(ratio(f"{name}, compiled / plain", times["compiled"], times["plain"], note=note))
        figures.append(Figure(f"{name}, compiling", first, unit="s"))
        details[name] = times
    again = sum(graphs[1:])
    figures.append(Figure("packed encoder, graphs of the first step", graphs[0]))
    figures.append(
        Figure("packed encoder, graphs compiled again later", again, target=_MOST_AGAIN, direction="at_most",
               n=steps, note=f"over {len(set(cells))} numbers of cells in {steps} steps, dynamic shapes")
    )  # fmt: skip
    report("compile", asked, environment(Processes(0, 1, device)), figures, details)


if __name__ == "__main__":
    main()
