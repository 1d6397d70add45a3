"""The training step as CUDA graphs on a GPU, alternating with the plain step and a stock supervised step.

The number of visible cells differs from step to step; it is rounded up to one of 32 numbers per power of two, and each
gets a graph. Steps have new masks every time, as in training; the optimizer, the moving average and the drawing of the
masks are included, loading is not.

    python benchmarks/gpu_graphs.py                                     # ResNet-50, 224 px, batch 256, bf16
    python benchmarks/gpu_graphs.py --arch resnet18 --stem small --image-size 64 --batch 512
"""

import argparse
import itertools
import sys
import time
from typing import Any

import torch
from figures import Figure, add_options, median, ratio, report
from gpu_profile import listed_kernels
from gpu_step import config_of
from our_kernels import WAYS, within
from step import Supervised
from timing import alternately

from cnnjepa.measuring.step_timer import StepTimer
from cnnjepa.training.distributed import Processes, join
from cnnjepa.training.environment import environment

# Rounds, steps before the timing, steps of a round.
_MODES = {"full": (5, 200, 10), "quick": (3, 120, 10), "tiny": (1, 4, 2)}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda"], default="cuda")
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--stem", default="imagenet")
    parser.add_argument("--image-size", type=int, default=224, help="pixels per side")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--precision", choices=["bf16", "float32"], default="bf16")
    parser.add_argument("--workers", type=int, default=0, help=argparse.SUPPRESS)
    add_options(parser)
    return parser.parse_args()


def main() -> None:
    asked = arguments()
    if not torch.cuda.is_available():
        print("this machine has no usable CUDA GPU, and CUDA graphs need one", file=sys.stderr)
        raise SystemExit(2)
    rounds, before, steps = _MODES[asked.mode]
    plain, graphed = (config_of(asked, asked.batch, f"runtime.cuda_graphs={on}") for on in ("false", "true"))
    processes: Processes = join(plain.runtime)
    device = processes.device
    facts = environment(processes)
    print(
        f"{asked.arch}, {asked.image_size} px, batch {asked.batch}; {', '.join(facts['gpus'])}, torch {facts['torch']}"
    )
    supervised = Supervised(plain, device)
    timers = {"plain step": StepTimer(plain, device), "graphed step": StepTimer(graphed, device)}
    numbers = {name: itertools.count() for name in timers}
    start = time.perf_counter()
    for _ in range(before):
        timers["graphed step"].make(next(numbers["graphed step"]))
    torch.cuda.synchronize()
    warm_up = time.perf_counter() - start
    held = torch.cuda.memory_reserved() / 2**30

    def several(name: str) -> Any:
        return lambda: [timers[name].make(next(numbers[name])) for _ in range(steps)] and None

    works = {
        "supervised": lambda: [supervised() for _ in range(steps)] and None,
        "plain step": within(WAYS["no kernels"], several("plain step")),
        "graphed step": several("graphed step"),
    }
    times = alternately(works, rounds, device)
    images = asked.batch * steps
    note = f"{asked.arch}, {asked.image_size} px, batch {asked.batch}, {asked.precision}"
    graphs = timers["graphed step"].graphed.captured  # type: ignore[union-attr]
    figures = [
        *[median(name, [images / t for t in times[name]], unit="images/s", note=note) for name in works],
        ratio("graphed step / supervised step", times["graphed step"], times["supervised"], target=1.0,
              direction="at_most"),
        ratio("plain step / supervised step", times["plain step"], times["supervised"]),
        ratio("plain step / graphed step", times["plain step"], times["graphed step"]),
        Figure("graphs captured", graphs, note=f"in {before + (rounds + 1) * steps} steps"),
        Figure(f"first {before} steps, graphed", warm_up, "s", note="captures included"),
        Figure("memory reserved after them", held, "GiB", note="the supervised network included"),
    ]  # fmt: skip
    report("gpu_graphs", asked, facts, figures, {"times": times})
    listed = listed_kernels(device, lambda: timers["graphed step"].make(next(numbers["graphed step"])), most=30)
    report("gpu_graphs", asked, facts, figures, {"times": times, "kernels": listed})


if __name__ == "__main__":
    main()
