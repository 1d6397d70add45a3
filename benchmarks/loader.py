"""Images per second that one core prepares for training: the plain Pillow + torchvision pipeline and ours, alternately.

Both decode JPEGs of 500x375, take a random resized crop of 224 px (bicubic, scale 0.2 to 1) and flip half of them, in
one loader process that shares its core with the process that receives the batches. Pillow's pipeline also converts
and normalises on the CPU, as is usual; ours does that on the device. Then both again on the set as `cnnjepa data pack`
leaves it. Targets: 2 x Pillow and 600 images/s per core; packed 1,100 images/s per core.

    python benchmarks/loader.py --quick     # as make bench runs it, under 40 s on one core
    python benchmarks/loader.py             # more images and rounds
"""

import argparse
import math
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from figures import Figure, add_options, median, ratio, report
from photo_set import write_photos
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from cnnjepa.data import open_data
from cnnjepa.data.batches import Order, training_batches
from cnnjepa.data.pack import pack, prepare
from cnnjepa.data.verify import verify
from cnnjepa.schemas import FolderData
from cnnjepa.training.distributed import Processes
from cnnjepa.training.environment import environment

CPU = torch.device("cpu")
SIZE = 224
RATES = (1_000, 3_500, 7_000)
_MODES = {"full": (1024, 9, 9), "quick": (256, 5, 7), "tiny": (128, 1, 2)}
"""Images drawn, timed rounds, batches of 64 a round."""
TARGETS = {"ours": 600.0, "ours, packed": 1100.0}
"""Images per second and core."""


def ours(root: Path, batch: int, batches: int) -> Iterator[Any]:
    """As a run reads a folder."""
    config = FolderData(path=root, image_size=SIZE, resident="never")
    data = open_data(config)
    order = Order(data.train.labels.numel(), batch, 0, 1, seed=0)
    return training_batches(data, config, order, 0, batches, 1, CPU)


def pillow(root: Path, batch: int, batches: int) -> Iterator[Any]:
    """As most training scripts do it."""
    data = ImageFolder(
        str(root / "train"),
        transforms.Compose(
            [
                transforms.RandomResizedCrop(SIZE, (0.2, 1.0), interpolation=transforms.InterpolationMode.BICUBIC),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        ),
    )
    indices = [i % len(data) for i in range(batch * batches)]
    return iter(DataLoader(data, batch, sampler=indices, num_workers=1, prefetch_factor=4))


def rate(made: Iterator[Any], batch: int) -> float:
    """Images a second between the first batch and the last."""
    next(made)
    start, count = time.perf_counter(), 0
    for _ in made:
        count += 1
    return count * batch / (time.perf_counter() - start)


def epoch_starts(root: Path, images: int, images_per_s: float) -> dict[str, float]:
    """Median milliseconds that a trainer somewhat slower than the loader waits for a batch: within an epoch, and for
    the first of each epoch after the first."""
    batch, epochs = images // 8, 5
    first, inside = [], []
    made = ours(root, batch, 8 * epochs)
    for step in range(8 * epochs):
        start = time.perf_counter()
        next(made)
        waited = 1e3 * (time.perf_counter() - start)
        if step >= 8:
            (first if step % 8 == 0 else inside).append(waited)
        time.sleep(1.3 * batch / images_per_s)  # the device computes; the core is the loader's
    return {"first_ms": statistics.median(first), "first_worst_ms": max(first), "inside_ms": statistics.median(inside)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    asked = parser.parse_args()
    (images, rounds, batches), batch = _MODES[asked.mode], 64
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)

    with tempfile.TemporaryDirectory() as folder:
        plain, small = Path(folder) / "plain", Path(folder) / "packed"
        kilobytes = write_photos(plain, images)
        small.mkdir()
        packing = prepare(FolderData(path=plain), small, 256, 95)
        start = time.perf_counter()
        for _ in pack(packing, 1):
            pass
        packed_rate = images / (time.perf_counter() - start)
        for _ in verify(packing, 1):
            pass
        small_folder = Path(folder) / "small"  # what the reference can read: the same files, out of their shards
        _unpack(small, small_folder)
        works: dict[str, Callable[[], Iterator[Any]]] = {
            "pillow": lambda: pillow(plain, batch, batches),
            "ours": lambda: ours(plain, batch, batches),
            "pillow, packed": lambda: pillow(small_folder, batch, batches),
            "ours, packed": lambda: ours(small, batch, batches),
        }
        rates: dict[str, list[float]] = {name: [] for name in works}
        for number in range(rounds + 1):
            for name, work in works.items():
                found = rate(work(), batch)
                if number:
                    rates[name].append(found)
        middle = {name: statistics.median(values) for name, values in rates.items()}
        waits = epoch_starts(small, images, middle["ours, packed"])
    inverse = {name: [1 / value for value in values] for name, values in rates.items()}
    figures = [
        median(name, rates[name], unit="images/s per core", target=TARGETS.get(name),
               direction="at_least" if name in TARGETS else None)
        for name in works
    ]  # fmt: skip
    figures += [
        ratio("ours / Pillow", inverse["pillow"], inverse["ours"], target=2.0, direction="at_least"),
        ratio("ours / Pillow, packed", inverse["pillow, packed"], inverse["ours, packed"]),
        Figure("packing", packed_rate, unit="images/s per core"),
        Figure(
            "first batch of an epoch / one within", waits["first_ms"] / waits["inside_ms"],
            note=f"waits of {waits['first_ms']:.1f} and {waits['inside_ms']:.1f} ms, trainer slower than the loader",
        ),
    ]  # fmt: skip
    workers = {name: [math.ceil(wanted / middle[name]) for wanted in RATES] for name in works}
    for name, needed in workers.items():
        rest = f"{' / '.join(map(str, needed))} for {' / '.join(f'{wanted:,}' for wanted in RATES)} images/s"
        figures.append(Figure(f"workers for {RATES[0]:,} images/s, {name}", needed[0], note=rest))
    facts = environment(Processes(0, 1, CPU))
    print(f"JPEG {kilobytes:.0f} kB at 500x375 -> {SIZE} px; {images} images; core {core} of {facts['cpu']}")
    details = {"rates": rates, "workers": workers, "waits": waits, "kilobytes": kilobytes, "images": images}
    report("loader", asked, facts, figures, details)


def _unpack(packed: Path, folder: Path) -> None:
    for shard in sorted(packed.glob("*.tar")):
        with tarfile.open(shard) as tar:
            tar.extractall(folder, filter="data")


if __name__ == "__main__":
    main()
