"""Packing: images are shrunk once to the size that crops need and stored in tar shards, so that every epoch decodes
less.

Most of the time for decoding a JPEG goes into entropy decoding, which grows with the size of the file. The only way to
decode faster is to store less. Images are resized with the crops' filter (bicubic, antialiased). A packed set has its
own fingerprint, and hence its own hashes.
"""

import hashlib
import io
import tarfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torchvision
from torch import Tensor
from torchvision.io import encode_jpeg

from cnnjepa.commands import command
from cnnjepa.data.check import read_as_stored
from cnnjepa.data.decoding import decode
from cnnjepa.data.folder import FolderSource
from cnnjepa.data.jpeg_damage import repaired_images
from cnnjepa.data.open import left_out_note, open_sources, refuse_unfit
from cnnjepa.data.pixels import RGB8
from cnnjepa.data.resample import resized
from cnnjepa.data.shards import MANIFEST, Manifest, ShardIndex, read_index, read_manifest, shard_file
from cnnjepa.data.source import EncodedSource
from cnnjepa.errors import ImageError, RunError
from cnnjepa.schemas import ConfigError, DataConfig
from cnnjepa.storage.atomic_files import AtomicFile, write_atomically

# A kill loses the work of at most one shard (4,096 images: ten seconds to a minute). A reader keeps every shard open,
# so there are at most 512 (a process may usually open 1,024 files).
_LEAST_IN_SHARD, _MOST_SHARDS = 4096, 512

_MAGIC = {
    b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp", b"GIF8": ".gif", b"II": ".tif", b"MM": ".tif",
    b"BM": ".bmp", b"\x93NUMPY": ".npy",
}  # fmt: skip

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Packing:
    """Source, destination and settings of a packing."""

    sources: dict[str, EncodedSource]
    source: Path
    dest: Path
    manifest: Manifest
    skip_unreadable: bool
    notes: tuple[str, ...] = ()
    """Facts about the source that the user should know: files that the scan left out, by reason."""

    def shard(self, number: int) -> list[tuple[str, int]]:
        """Return (split, index) of the images in one shard."""
        first, train = number * self.manifest.images_per_shard, self.manifest.train
        last = min(first + self.manifest.images_per_shard, train + self.manifest.val)
        return [("train", i) if i < train else ("val", i - train) for i in range(first, last)]

    def folder(self, split: str, index: int) -> str:
        """Return `<split>/<class>`, the folder of the image, or `<split>` without labels. Numeric classes keep their
        order."""
        source = self.sources[split]
        label = int(source.labels[index])
        if not source.class_names:
            return split
        if isinstance(source, FolderSource):
            return f"{split}/{source.class_names[label]}"
        classes = len(self.sources["train"].class_names)
        return f"{split}/{label:0{len(str(classes - 1))}d}"

    def file(self, split: str, index: int) -> str:
        """Return the image's name within its class; without an extension if the source has no names."""
        source = self.sources[split]
        if isinstance(source, FolderSource):
            return source.file_name(index)
        return f"{index:0{len(str(source.labels.numel() - 1))}d}"


class _Packed(NamedTuple):
    path: str
    content: bytes
    copied: bool
    problem: str | None = None
    repaired: str | None = None


def prepare(config: DataConfig, dest: Path, shorter_side: int, quality: int, skip_unreadable: bool = False) -> Packing:
    """Open the source and inspect `dest`; write nothing. Raises ConfigError for a set that no run could use, and if
    `dest` holds something else or the same source packed with other settings."""
    opened: dict[str, EncodedSource] = {}
    sources, path = open_sources(config), config.images_path
    if sources.lost and not skip_unreadable:
        raise ConfigError(
            f"{sources.lost[0]}; restore or remove it, or pack without it with --skip-unreadable "
            f"(`{command('cnnjepa', 'data', 'check', path)}` names all)"
        )
    for split, source in sources.items():
        if not isinstance(source, EncodedSource):
            raise ConfigError(f"{path}: source {config.source} has no image files that could be packed")
        opened[split] = source
    kind = read_as_stored(sources)
    for split, source in opened.items():
        seen = source.labels.unique().tolist()
        if split == "train" and len(seen) < len(source.class_names):
            absent = [str(label) for label in range(len(source.class_names)) if label not in seen]
            raise ConfigError(
                f"{path}: no training image has label {', '.join(absent[:5])}; packing would number the classes "
                "anew, so give the set labels from 0 to classes - 1"
            )
    refuse_unfit(str(path), opened["train"], opened["val"])
    train, val = (opened[split].labels.numel() for split in ("train", "val"))
    fingerprint = hashlib.sha256("".join(source.fingerprint() for source in opened.values()).encode()).hexdigest()
    notes = (*sources.lost, *sources.notes, *left_out_note(sources))
    manifest = Manifest(
        source_fingerprint=fingerprint,
        shorter_side=shorter_side,
        quality=quality,
        train=train,
        val=val,
        channels=kind.channels,
        dtype=kind.dtype,
        images_per_shard=max(_LEAST_IN_SHARD, -(-(train + val) // _MOST_SHARDS)),
        made_with=f"torchvision {torchvision.__version__}",
    )
    return Packing(opened, path or Path(), dest, _agreed(dest, manifest, path), skip_unreadable, notes)


def _agreed(dest: Path, asked: Manifest, source: Path | None) -> Manifest:
    """Return the manifest with which `dest` was begun, or `asked` if `dest` is new. Raises ConfigError if the two do
    not agree."""
    there = read_manifest(dest) if dest.is_dir() else None
    if there is None:
        if dest.exists() and not (dest.is_dir() and all(_of_a_beginning(path.name) for path in dest.iterdir())):
            raise ConfigError(f"{dest} exists and was not made by `cnnjepa data pack`; give a new or empty folder")
        return asked
    if there.source_fingerprint != asked.source_fingerprint:
        raise ConfigError(
            f"{dest} holds another set ({there.train:,} + {there.val:,} images) than {source} ({asked.train:,} + "
            f"{asked.val:,}), or its files have changed since; give another folder, or delete {dest}"
        )
    for name in ("shorter_side", "quality"):
        was, now = getattr(there, name), getattr(asked, name)
        if was != now:
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{dest} is packed with {option} {was}, not {now}; give that, or another folder")
    return there


def _of_a_beginning(name: str) -> bool:
    """Return whether a file may exist before `pack.json` does: a killed process can leave its temporary file."""
    return name == ".lock" or (name.startswith(f"{MANIFEST}.") and name.endswith(".tmp"))


def pack(packing: Packing, threads: int) -> Iterator[int]:
    """Write the missing shards. Yields the number of images done after each shard. Raises ConfigError for an unreadable
    image and RunError if writing to the disk fails; in both cases a further call continues the work."""
    root, manifest = packing.dest, packing.manifest
    _agreed(root, manifest, packing.source)  # another process may have written here since `prepare`
    whole = all(read_index(root, number) is not None for number in range(manifest.shards))
    if read_manifest(root) is None or not whole:
        mark(packing, finished=False)
    for left in root.glob("*.tmp"):
        left.unlink()
    done = 0
    with ThreadPoolExecutor(threads) as pool:
        for number in range(manifest.shards):
            images = packing.shard(number)
            if read_index(root, number) is not None:
                done += len(images)
                yield done
                continue
            with _shard(shard_file(root, number)) as shard:
                for packed in in_order(pool, lambda image: _packed(packing, *image), images, 4 * threads):
                    shard.add(packed)
                    done += 1
                    yield done


def mark(packing: Packing, finished: bool) -> None:
    """Write `pack.json`. Runs read a set only if it is finished."""
    manifest = packing.manifest.model_copy(update={"finished": finished})
    write_atomically(packing.dest / MANIFEST, manifest.model_dump_json(indent=2).encode())


def in_order(pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    """Apply `work` like `map`, but start at most `ahead` items before their results are needed. This bounds the memory,
    and an error or Ctrl-C has little to wait for."""
    begun: deque[Future[R]] = deque()
    try:
        for item in items:
            begun.append(pool.submit(work, item))
            if len(begun) > ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        for future in begun:
            future.cancel()


def _packed(packing: Packing, split: str, index: int) -> _Packed:
    source, manifest = packing.sources[split], packing.manifest
    folder, file = packing.folder(split, index), packing.file(split, index)
    try:
        encoded = source.read(index)
        with repaired_images() as found:
            image = decode(encoded, source.name(index), manifest.pixels)
    except ImageError as error:
        if packing.skip_unreadable:
            return _Packed(f"{folder}/{file}", b"", False, str(error))
        find = command("cnnjepa", "data", "check", packing.source)
        raise ConfigError(
            f"{error}; --skip-unreadable leaves such images out and resumes here. If they are repaired or removed "
            f"instead, the set is another one and needs a new folder; `{find}` finds all of them first"
        ) from None
    repaired = found[0] if found else None
    if min(image.shape[1:]) <= manifest.shorter_side:
        if not isinstance(source, FolderSource):
            file += next((ending for magic, ending in _MAGIC.items() if encoded.startswith(magic)), ".avif")
        return _Packed(f"{folder}/{file}", encoded, True, repaired=repaired)
    small = resized(image, [manifest.shorter_side], "bicubic")
    if manifest.pixels != RGB8:  # a JPEG would lose bits and channels
        return _Packed(f"{folder}/{file}.npy", _array_file(small), False, repaired=repaired)
    jpeg = encode_jpeg(small.contiguous(), manifest.quality).numpy().tobytes()
    return _Packed(f"{folder}/{as_jpeg(file)}", jpeg, False, repaired=repaired)


def _array_file(image_CHW: Tensor) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, image_CHW.permute(1, 2, 0).contiguous().numpy())
    return buffer.getvalue()


def as_jpeg(file: str) -> str:
    """Return the file's name with the extension of a JPEG."""
    return file if file.lower().endswith((".jpg", ".jpeg")) else f"{file}.jpg"


class _Shard:
    """A tar archive that is being written, and what its index will say."""

    def __init__(self, file: AtomicFile) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._images: list[tuple[str, int, int]] = []
        self._skipped: list[tuple[str, str]] = []
        self._repaired: list[str] = []
        self._copied = self._size = 0

    def add(self, packed: _Packed) -> None:
        """Add the next image, or the reason why there is none."""
        if packed.problem is not None:
            self._skipped.append((packed.path, packed.problem))
            return
        info = tarfile.TarInfo(packed.path)  # no owner and no time, so that a shard depends on its images only
        info.size = len(packed.content)
        header = info.tobuf(tarfile.GNU_FORMAT)
        self._images.append((packed.path, self._size + len(header), info.size))
        self._copied += packed.copied
        self._repaired += [packed.repaired] if packed.repaired else []
        self._write(header + packed.content + bytes(-info.size % tarfile.BLOCKSIZE))

    def end(self) -> ShardIndex:
        """Write the end mark of a tar archive and return the shard's index."""
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        return ShardIndex(
            images=self._images,
            size=self._size,
            sha256=self._hash.hexdigest(),
            copied=self._copied,
            skipped=self._skipped,
            repaired=self._repaired,
        )

    def _write(self, content: bytes) -> None:
        self._file.write(content)
        self._hash.update(content)
        self._size += len(content)


@contextmanager
def _shard(path: Path) -> Iterator[_Shard]:
    """Give a shard to add images to. It appears at `path` when the block ends, followed by its index. After an
    exception neither exists."""
    try:
        with AtomicFile(path) as file:
            shard = _Shard(file)
            yield shard
            index = shard.end()
        write_atomically(path.with_suffix(".json"), index.model_dump_json().encode())
    except RunError as error:
        raise RunError(
            f"{error}; fix the cause (a full disk: make room) and run the same command again, which resumes here"
        ) from None
