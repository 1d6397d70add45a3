"""Verification of a packed set: every shard is unchanged, every image can be decoded, and none is missing."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from cnnjepa.data.decoding import decode
from cnnjepa.data.entries import Entry
from cnnjepa.data.pack import Packing, as_jpeg, in_order, mark
from cnnjepa.data.shards import Manifest, ShardIndex, Shards, read_index, shard_file
from cnnjepa.errors import ImageError, RunError


class PackedFacts(NamedTuple):
    """Content of a packed set."""

    train: int
    val: int
    shards: int
    size: int
    """Size of all shards in bytes."""
    copied: int
    """Number of images copied byte for byte."""
    skipped: list[str]
    """Unreadable images left out, by name and reason."""
    repaired: list[str]
    """Damaged images that were repaired while reading, by name and reason."""


def verify(packing: Packing, threads: int) -> Iterator[int]:
    """Read all shards back. Yields the number of verified images after each shard. At the end the set is marked as
    finished.

    Checks each shard's SHA-256, that its images are those of the source, class by class in the same order, and that no
    decoded image exceeds the shorter side. Raises RunError, which names the fault and the remedy. A faulty shard is
    removed, so that packing again rewrites it.
    """
    root, manifest = packing.dest, packing.manifest
    good = 0
    kept: set[int] = set()  # labels of training images found
    reader = Shards(root, finished=False)
    with ThreadPoolExecutor(threads) as pool:
        for number in range(manifest.shards):
            index = _index(root, number)
            shard = shard_file(root, number)
            with open(shard, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != index.sha256:
                    raise _wrong(packing, number, "its bytes are not those that were written")
            kept |= _compare(packing, number, index)
            entries = [Entry(path, size, offset, number) for path, offset, size in index.images]
            for problem in in_order(pool, lambda e: _problem(reader, e, manifest), entries, 4 * threads):
                if problem:
                    raise _wrong(packing, number, problem)
                good += 1
                yield good
            good += len(index.skipped)
            yield good
    names = packing.sources["train"].class_names
    missing = [str(name) for label, name in enumerate(names) if label not in kept]
    if missing:
        raise RunError(
            f"{root}: no training image of class {', '.join(missing[:5])} could be read; nothing is finished"
        )
    mark(packing, finished=True)


def facts(packing: Packing) -> PackedFacts:
    """Return the facts about a complete packed set."""
    indices = [_index(packing.dest, number) for number in range(packing.manifest.shards)]
    train = sum(path.startswith("train/") for index in indices for path, _, _ in index.images)
    return PackedFacts(
        train=train,
        val=sum(len(index.images) for index in indices) - train,
        shards=len(indices),
        size=sum(index.size for index in indices),
        copied=sum(index.copied for index in indices),
        skipped=[reason for index in indices for _, reason in index.skipped],
        repaired=[reason for index in indices for reason in index.repaired],
    )


def _index(root: Path, number: int) -> ShardIndex:
    index = read_index(root, number)
    if index is None:
        raise RunError(f"{shard_file(root, number)} is missing or not whole; pack again to write it anew")
    return index


def _wrong(packing: Packing, number: int, what: str) -> RunError:
    shard = shard_file(packing.dest, number)
    mark(packing, finished=False)
    shard.with_suffix(".json").unlink()
    return RunError(f"{shard}: {what}; it no longer counts, pack again to write it anew (and look at the disk)")


def _compare(packing: Packing, number: int, index: ShardIndex) -> set[int]:
    """Compare the shard's images with the source's, in order. Returns the labels of its training images."""
    found = iter([path for path, _, _ in index.images])
    skipped = {path for path, _ in index.skipped}
    labels = set()
    for split, place in packing.shard(number):
        expected = f"{packing.folder(split, place)}/{packing.file(split, place)}"
        if expected in skipped:
            continue
        path = next(found, "nothing")
        if path not in (expected, as_jpeg(expected)) and path.rsplit(".", 1)[0] != expected:
            raise _wrong(packing, number, f"{expected} should be there, {path} is")
        if split == "train":
            labels.add(int(packing.sources[split].labels[place]))
    extra = next(found, None)
    if extra is not None:
        raise _wrong(packing, number, f"{extra} is not in the source")
    return labels


def _problem(reader: Shards, entry: Entry, manifest: Manifest) -> str | None:
    try:
        image = decode(reader.read(entry), entry.path, manifest.pixels)
    except (ImageError, OSError) as error:
        return str(error)
    side = min(image.shape[1:])
    return f"{entry.path} has a shorter side of {side} pixels" if side > manifest.shorter_side else None
