"""Images per second that are cropped, flipped and resized in memory, on this CPU: batches of 64 px images, as a
resident set is augmented, and torchvision's RandomResizedCrop image by image on the same uint8 tensors, alternately.

Targets on two threads: 10,000 images/s bilinear, 4,000 bicubic.

    python benchmarks/augmentation.py                 # all cores, about 15 s
    python benchmarks/augmentation.py --threads 1
"""

import argparse
import os
from collections.abc import Callable
from typing import Literal

import torch
from figures import add_options, median, ratio, report
from timing import alternately
from torchvision.transforms import InterpolationMode, v2

from cnnjepa.data import DataSet
from cnnjepa.data.batches import Order, training_batches
from cnnjepa.data.resident import ResidentSource
from cnnjepa.schemas import AugmentationConfig, FolderData
from cnnjepa.training.distributed import Processes
from cnnjepa.training.environment import environment

CPU = torch.device("cpu")
TARGETS: dict[Literal["bilinear", "bicubic"], int] = {"bilinear": 10_000, "bicubic": 4_000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--size", type=int, default=64, help="side length in pixels")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--batches", type=int, default=8, help="a round")
    add_options(parser)
    asked = parser.parse_args()
    rounds = {"full": 15, "quick": 7, "tiny": 1}[asked.mode]
    torch.set_num_threads(asked.threads)
    count, size = 20 * asked.batch, asked.size
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
    source = ResidentSource(images, torch.arange(count) % 10, [str(n) for n in range(10)], "", str)
    data = DataSet(source, source, "noise", "")
    order = Order(count, asked.batch, 0, 1, seed=0)
    seen = asked.batch * asked.batches

    def ours(kind: Literal["bilinear", "bicubic"]) -> None:
        config = FolderData(image_size=size, augmentation=AugmentationConfig(interpolation=kind))
        for _ in training_batches(data, config, order, 0, asked.batches, 0, CPU):
            pass

    def stock(kind: Literal["bilinear", "bicubic"]) -> None:
        flips = v2.RandomHorizontalFlip()
        crops = v2.RandomResizedCrop(size, (0.2, 1.0), interpolation=InterpolationMode(kind), antialias=True)
        for start in range(0, seen // 4, asked.batch):  # a quarter: it is the slower one
            torch.stack([flips(crops(image)) for image in images[start : start + asked.batch]])

    works: dict[str, Callable[[], None]] = {}
    for kind in TARGETS:
        works[f"ours, {kind}"] = lambda kind=kind: ours(kind)
        works[f"torchvision, {kind}"] = lambda kind=kind: stock(kind)
    times = alternately(works, rounds)
    figures = []
    note = f"{size} px, batch {asked.batch}, {asked.threads} thread(s)"
    for kind, target in TARGETS.items():
        rates = [seen / taken for taken in times[f"ours, {kind}"]]
        figures.append(median(kind, rates, unit="images/s", target=target, direction="at_least", note=note))
        theirs = [4 * taken for taken in times[f"torchvision, {kind}"]]
        figures.append(ratio(f"{kind} / torchvision image by image", theirs, times[f"ours, {kind}"]))
    report("augmentation", asked, environment(Processes(0, 1, CPU)), figures, {"seconds": times})


if __name__ == "__main__":
    main()
