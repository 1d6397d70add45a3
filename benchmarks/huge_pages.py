"""Time that pages of 2 MiB save in a pretraining step on a CPU: the same step in two processes, alternately.

torch reads its switch once in a process, so every kind needs one of its own; while one makes a step, the other waits.
Memory for the figure of peaks is each process's own, after its last step.

    python benchmarks/huge_pages.py                 # ResNet-50, 224 px, batch 16, both precisions
    python benchmarks/huge_pages.py --rounds 15 --precision bf16
"""

import argparse
import os
import subprocess
import sys
from typing import IO, Any

import torch
from figures import Figure, add_options, add_sizes, median, ratio, report, sized
from step import published
from timing import alternately

from cnnjepa.measuring.step_timer import StepTimer
from cnnjepa.training.distributed import Processes
from cnnjepa.training.environment import environment, peak_memory_bytes

CPU = torch.device("cpu")
# Torch's switch: pages of 2 MiB under tensors of that size and more, where Linux gives them.
SWITCH = "THP_MEM_ALLOC_ENABLE"
# Rounds, architecture, image side in pixels and batch of every mode.
_MODES = {"full": (9, "resnet50", 224, 16), "quick": (3, "resnet50", 224, 16), "tiny": (1, "resnet18", 224, 2)}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_sizes(parser)
    parser.add_argument("--precision", choices=["float32", "bf16"], help="one of them alone")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    add_options(parser)
    return sized(parser.parse_args(), _MODES)


def work(asked: argparse.Namespace) -> None:
    """A step for every line of stdin; answers with the peak memory so far, bytes."""
    asked.device = "cpu"
    step = StepTimer(published(asked), CPU)
    for number, _ in enumerate(sys.stdin):
        step.make(number)
        print(peak_memory_bytes(CPU), flush=True)


class Worker:
    """A process with one kind of pages."""

    def __init__(self, huge: bool, precision: str) -> None:
        words = [sys.executable, __file__, "--worker", "--precision", precision, *sys.argv[1:]]
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, SWITCH: str(int(huge))}
        )
        self.peak = 0

    def __call__(self) -> None:
        asks, answers = self._pipes()
        print(file=asks, flush=True)
        answer = answers.readline()
        if not answer:
            raise SystemExit("a worker ended; what it said stands above")
        self.peak = int(answer)

    def end(self) -> None:
        """Lets the process go."""
        self._pipes()[0].close()
        self._process.wait()

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._process.stdin and self._process.stdout
        return self._process.stdin, self._process.stdout


def main() -> None:
    asked = arguments()
    if asked.worker:
        work(asked)
        return
    figures: list[Figure] = []
    details: dict[str, Any] = {}
    for precision in [asked.precision] if asked.precision else ["float32", "bf16"]:
        huge, small = Worker(True, precision), Worker(False, precision)
        times = alternately({"huge": huge, "small": small}, asked.rounds, warm_up=2)
        figures += [
            ratio(f"step with huge pages / without, {precision}", times["huge"], times["small"]),
            median(f"step with huge pages, {precision}", times["huge"], unit="s"),
            Figure(f"peak memory with huge pages / without, {precision}", huge.peak / small.peak),
        ]
        details[precision] = times
        huge.end()
        small.end()
    report("huge_pages", asked, environment(Processes(0, 1, CPU)), figures, details)


if __name__ == "__main__":
    main()
