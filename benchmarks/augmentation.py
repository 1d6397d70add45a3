"""Images a second that are cropped, flipped and resized in memory, on this CPU: batches of 64 px images, as a resident
set is augmented, and torchvision's RandomResizedCrop image by image on the same uint8 tensors, alternately.

Targets on two threads: 10,000 images/s bilinear, 4,000 bicubic.

    python benchmarks/augmentation.py                 # all cores, about 15 s
    python benchmarks/augmentation.py --threads 1
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torchvision.transforms import InterpolationMode, v2

from cnnjepa.data import DataSet
from cnnjepa.data.batches import Order, training_batches
from cnnjepa.data.resident import ResidentSource
from cnnjepa.schemas import AugmentationConfig, FolderData
from cnnjepa.training.distributed import Processes
from cnnjepa.training.environment import environment

OUT = Path(__file__).parent / "out"
CPU = torch.device("cpu")
TARGETS: dict[Literal["bilinear", "bicubic"], int] = {"bilinear": 10_000, "bicubic": 4_000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--size", type=int, default=64, help="pixels a side")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--batches", type=int, default=8, help="a round")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds after one warm-up")
    asked = parser.parse_args()
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

    works: dict[tuple[str, str], tuple[int, Callable[[], None]]] = {}
    for kind in TARGETS:
        works["ours", kind] = seen, lambda kind=kind: ours(kind)
        works["torchvision", kind] = seen // 4, lambda kind=kind: stock(kind)
    rates: dict[tuple[str, str], list[float]] = {name: [] for name in works}
    for number in range(asked.rounds + 1):
        for name, (done, work) in works.items():
            start = time.perf_counter()
            work()
            if number:
                rates[name].append(done / (time.perf_counter() - start))

    facts = environment(Processes(0, 1, CPU))
    print(
        f"{size} px, batch {asked.batch}, {asked.threads} thread(s) of {facts['cpu']}, torch {facts['torch']}; "
        f"medians of {asked.rounds} alternating rounds\n"
    )
    print(f"{'':<10} {'images/s':>9} {'range':>18} {'target':>8} {'torchvision':>12} {'ratio':>6}")
    rows = []
    for kind, target in TARGETS.items():
        mine, theirs = rates["ours", kind], rates["torchvision", kind]
        row = {
            "interpolation": kind,
            "images_per_s": statistics.median(mine),
            "target": target,
            "ratio": statistics.median(a / b for a, b in zip(mine, theirs, strict=True)),
            "rates": mine,
            "torchvision": theirs,
        }
        rows.append(row)
        print(
            f"{kind:<10} {row['images_per_s']:>9,.0f} {f'{min(mine):,.0f} to {max(mine):,.0f}':>18} {target:>8,} "
            f"{statistics.median(theirs):>12,.0f} {row['ratio']:>6.1f}"
        )
    OUT.mkdir(exist_ok=True)
    (OUT / "augmentation.json").write_text(
        json.dumps({"kind": "augmentation", "asked": vars(asked), "environment": facts, "rows": rows})
    )
    print("\nwrote benchmarks/out/augmentation.json")


if __name__ == "__main__":
    main()
