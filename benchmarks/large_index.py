"""Time and memory that it takes to open the kept index of a set of tar shards, and the growth of a loader process.

The shards are real, with one image each. The index has as many entries as asked for, and all entries of a shard point
to its image, so that ImageNet-21k (14 million images) can be tried in 2 GB of disk. Results: docs/own_images.md.

    python benchmarks/large_index.py --images 14000000
"""

import argparse
import io
import multiprocessing
import os
import random
import resource
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from cnnjepa.data import index_cache
from cnnjepa.data.entries import Entries
from cnnjepa.data.folder_index import Index, Part
from cnnjepa.data.open import DataSet, open_data
from cnnjepa.data.scan import LeftOut
from cnnjepa.schemas import FolderData

SHARDS, VAL_SHARDS, CLASSES = 1400, 4, 21_841


def main() -> None:
    """Print one line per measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=14_000_000)
    parser.add_argument("--loaded", type=int, default=100_000, help="images that the loader process reads")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CNNJEPA_CACHE"] = str(Path(folder) / "cache")
        root = Path(folder) / "shards"
        config = FolderData(path=root, resident="never")
        size = write_shards(root)
        begin = time.perf_counter()
        file = write_kept(root, config, asked.images, size)
        print(f"index of {asked.images:,} images: {file.stat().st_size / 1e6:,.0f} MB, {seconds_since(begin)} to make")
        before = resident_mb("anonymous")
        begin = time.perf_counter()
        data = open_data(config)
        opened = seconds_since(begin)
        print(f"open_data: {opened} for {data.train.labels.numel():,} training images of {data.classes:,} classes")
        print(f"memory of the process: {resident_mb('anonymous') - before:,.0f} MB more of its own")
        answers: Any = multiprocessing.get_context("fork").Queue()
        process = multiprocessing.get_context("fork").Process(target=load, args=(data, asked.loaded, answers))
        process.start()
        print(f"loader process, {asked.loaded:,} images at random: {answers.get():.1f} MB more of its own")
        process.join()
        begin = time.perf_counter()
        (root / "train-0007.tar").touch()
        kept = index_cache._kept(file, root, config)
        print(f"a shard that has changed: the index is {'used' if kept else 'not used'}, after {seconds_since(begin)}")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"largest memory of the process, with making the index: {peak:,.0f} MB")


def write_shards(root: Path) -> int:
    """Write shards with one JPEG each. Returns its size in bytes."""
    root.mkdir()
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(buffer, "JPEG")
    then = time.time() - 60
    for number in range(SHARDS):
        split = "val" if number < VAL_SHARDS else "train"
        with tarfile.open(root / f"{split}-{number:04d}.tar", "w") as tar:
            member = tarfile.TarInfo("image.jpg")
            member.size = len(buffer.getvalue())
            tar.addfile(member, io.BytesIO(buffer.getvalue()))
        os.utime(root / f"{split}-{number:04d}.tar", (then, then))
    os.utime(root, (then, then))
    return len(buffer.getvalue())


def write_kept(root: Path, config: FolderData, images: int, size: int) -> Path:
    """Write the index as the program would have kept it. Returns its file."""
    shards = sorted(path.name for path in root.iterdir())
    names = [f"n{number:08d}" for number in range(CLASSES)]

    def part(split: str) -> Part:
        own = [place for place, name in enumerate(shards) if name.startswith(split)]
        count = images * len(own) // len(shards)
        numbers = np.arange(count)
        of = numbers % CLASSES
        text = b"".join(f"{split}/{names[number % CLASSES]}/{number:010d}.jpg".encode() for number in range(count))
        length = len(text) // count
        arrays = [
            np.frombuffer(text, np.uint8), np.arange(count + 1) * length, np.full(count, size), np.full(count, 512),
            np.array(own)[numbers % len(own)],
        ]  # fmt: skip
        return Part(Entries.of_arrays(arrays), torch.from_numpy(of), None, fingerprint=split)

    watched = ["", *shards]
    index = Index(part("train"), part("val"), names, None, "a benchmark", [], [], LeftOut(), shards, watched)
    file = index_cache._file(root, config)
    file.parent.mkdir(parents=True)
    index_cache._write(file, index, index_cache._signature(root, config, watched))
    return file


def load(data: DataSet, images: int, answers: Any) -> None:
    """Load images at random. Sends the growth of this process's own memory, in MB."""
    draw, count = random.Random(0), data.train.labels.numel()
    for _ in range(1000):  # what a process needs once
        data.train.load(draw.randrange(count))
    before = resident_mb("private")
    for _ in range(images):
        index = draw.randrange(count)
        data.train.load(index)
        int(data.train.labels[index])
    answers.put(resident_mb("private") - before)


def resident_mb(kind: str) -> float:
    """Return the anonymous memory of this process, or the part of it that is not shared with another, in MB."""
    fields = {"anonymous": ("Anonymous",), "private": ("Private_Dirty",)}[kind]
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.split(":")[0] in fields) / 1024


def seconds_since(begin: float) -> str:
    """Return the time since `begin`, in words."""
    return f"{time.perf_counter() - begin:.2f} s"


if __name__ == "__main__":
    main()
