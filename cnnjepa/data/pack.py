"""Packing: images shrunk once to what crops need, in tar shards, so that every epoch decodes less.

Entropy decoding is what a JPEG's decoding costs, and it grows with the file; so the only way to decode faster is to
store less. Images are resized with the crops' filter (bicubic, antialiased); a packed set has a fingerprint, hence
hashes, of its own.
"""

import hashlib
import os
import tarfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, TypeVar

import torchvision
from torchvision.io import encode_jpeg
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from cnnjepa.commands import command
from cnnjepa.data.decoding import decode
from cnnjepa.data.folder import FolderSource
from cnnjepa.data.hdf5 import HDF5Source
from cnnjepa.data.open import left_out_note, open_sources, refuse_unfit
from cnnjepa.data.shards import MANIFEST, Manifest, ShardIndex, read_index, read_manifest, shard_file
from cnnjepa.errors import ImageError, RunError
from cnnjepa.schemas import ConfigError, FolderData, HDF5Data
from cnnjepa.training.files import sync_folder, write_atomically

# A kill loses at most one shard's work (4,096 images: ten seconds to a minute), and a reader keeps every shard open, so
# there are at most 512 (a process may usually open 1,024 files).
_LEAST_IN_SHARD, _MOST_SHARDS = 4096, 512

_MAGIC = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp", b"GIF8": ".gif"}

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Packing:
    """What is to be packed, where to, and how."""

    sources: dict[str, FolderSource | HDF5Source]
    source: Path
    dest: Path
    manifest: Manifest
    skip_unreadable: bool
    notes: tuple[str, ...] = ()
    """Facts about the source that a person should know: files that the scan left out, by reason."""

    def shard(self, number: int) -> list[tuple[str, int]]:
        """(split, index) of the images of one shard."""
        first, train = number * self.manifest.images_per_shard, self.manifest.train
        last = min(first + self.manifest.images_per_shard, train + self.manifest.val)
        return [("train", i) if i < train else ("val", i - train) for i in range(first, last)]

    def folder(self, split: str, index: int) -> str:
        """`<split>/<class>`, where the image is put; classes of numbers keep their order."""
        source = self.sources[split]
        label = int(source.labels[index])
        if isinstance(source, FolderSource):
            return f"{split}/{source.class_names[label]}"
        classes = len(self.sources["train"].class_names)
        return f"{split}/{label:0{len(str(classes - 1))}d}"

    def file(self, split: str, index: int) -> str:
        """The image's name in its class, without the ending where the source has no names."""
        source = self.sources[split]
        if isinstance(source, FolderSource):
            return source.file_name(index)
        return f"{index:0{len(str(source.labels.numel() - 1))}d}"


class _Packed(NamedTuple):
    path: str
    content: bytes
    copied: bool
    problem: str | None = None


def prepare(
    config: FolderData | HDF5Data, dest: Path, shorter_side: int, quality: int, skip_unreadable: bool = False
) -> Packing:
    """Opens the source and looks at `dest`; writes nothing. Raises ConfigError for a set that no run could use, and
    when `dest` holds something else, or the same source packed otherwise."""
    opened: dict[str, FolderSource | HDF5Source] = {}
    sources = open_sources(config)
    if sources.lost and not skip_unreadable:
        raise ConfigError(
            f"{sources.lost[0]}; restore or remove it, or pack without it with --skip-unreadable "
            f"(`{command('cnnjepa', 'data', 'check', config.path)}` names all)"
        )
    for split, source in sources.items():
        assert isinstance(source, FolderSource | HDF5Source)
        opened[split] = source
        seen = source.labels.unique().tolist()
        if split == "train" and len(seen) < len(source.class_names):
            absent = [str(label) for label in range(len(source.class_names)) if label not in seen]
            raise ConfigError(
                f"{config.path}: no training image has label {', '.join(absent[:5])}; packing would number the classes "
                "anew, so give the set labels from 0 to classes - 1"
            )
    refuse_unfit(str(config.path), opened["train"], opened["val"])
    train, val = (opened[split].labels.numel() for split in ("train", "val"))
    fingerprint = hashlib.sha256("".join(source.fingerprint() for source in opened.values()).encode()).hexdigest()
    notes = (*sources.lost, *sources.notes, *left_out_note(sources))
    manifest = Manifest(
        source_fingerprint=fingerprint,
        shorter_side=shorter_side,
        quality=quality,
        train=train,
        val=val,
        images_per_shard=max(_LEAST_IN_SHARD, -(-(train + val) // _MOST_SHARDS)),
        made_with=f"torchvision {torchvision.__version__}",
    )
    return Packing(opened, config.path or Path(), dest, _agreed(dest, manifest, config.path), skip_unreadable, notes)


def _agreed(dest: Path, asked: Manifest, source: Path | None) -> Manifest:
    """What `dest` was begun with, or `asked` where it is new. Raises ConfigError where the two do not agree."""
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
    """Whether a file may be there before `pack.json` is: a kill can leave its forerunner."""
    return name == ".lock" or (name.startswith(f"{MANIFEST}.") and name.endswith(".tmp"))


def pack(packing: Packing, threads: int) -> Iterator[int]:
    """Writes the shards that are missing; gives the number of images done after each. Raises ConfigError for an
    unreadable image, RunError when the disk refuses; either way it can be called again and goes on."""
    root, manifest = packing.dest, packing.manifest
    _agreed(root, manifest, packing.source)  # another process may have been here since `prepare`
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
            with _ShardFile(shard_file(root, number)) as shard:
                for packed in in_order(pool, lambda image: _packed(packing, *image), images, 4 * threads):
                    shard.add(packed)
                    done += 1
                    yield done


def mark(packing: Packing, finished: bool) -> None:
    """Writes `pack.json`; only a finished set is read by runs."""
    manifest = packing.manifest.model_copy(update={"finished": finished})
    write_atomically(packing.dest / MANIFEST, manifest.model_dump_json(indent=2).encode())


def in_order(pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    """`map` that begins at most `ahead` items before they are wanted, so that memory is bounded and an error or Ctrl-C
    has little to wait for."""
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
        image = decode(encoded, source.name(index))
    except ImageError as error:
        if packing.skip_unreadable:
            return _Packed(f"{folder}/{file}", b"", False, str(error))
        find = command("cnnjepa", "data", "check", packing.source)
        raise ConfigError(
            f"{error}; leave such images out with --skip-unreadable, which goes on here. Mended or removed, they make "
            f"another set, which needs a new folder; `{find}` finds all of them first"
        ) from None
    if min(image.shape[1:]) <= manifest.shorter_side:
        if isinstance(source, HDF5Source):
            file += next(ending for magic, ending in _MAGIC.items() if encoded.startswith(magic))
        return _Packed(f"{folder}/{file}", encoded, True)
    small = transforms.resize(image, [manifest.shorter_side], InterpolationMode.BICUBIC, antialias=True)
    jpeg = encode_jpeg(small.contiguous(), manifest.quality).numpy().tobytes()
    return _Packed(f"{folder}/{as_jpeg(file)}", jpeg, False)


def as_jpeg(file: str) -> str:
    """The name of a file that has become a JPEG."""
    return file if file.lower().endswith((".jpg", ".jpeg")) else f"{file}.jpg"


class _ShardFile:
    """A tar file that appears under its name once it is whole, and then gets its index. Left by an exception, it is
    discarded."""

    def __init__(self, path: Path) -> None:
        self._path, self._aside = path, path.with_name(f"{path.name}.tmp")
        self._hash = hashlib.sha256()
        self._images: list[tuple[str, int, int]] = []
        self._skipped: list[tuple[str, str]] = []
        self._copied = self._size = 0

    def __enter__(self) -> "_ShardFile":
        with self._refusals():
            self._file = open(self._aside, "wb")
        return self

    def add(self, packed: _Packed) -> None:
        """The next image, or the reason why there is none."""
        if packed.problem is not None:
            self._skipped.append((packed.path, packed.problem))
            return
        info = tarfile.TarInfo(packed.path)  # no owner and no time, so that a shard is a function of its images
        info.size = len(packed.content)
        header = info.tobuf(tarfile.GNU_FORMAT)
        self._images.append((packed.path, self._size + len(header), info.size))
        self._copied += packed.copied
        self._write(header + packed.content + bytes(-info.size % tarfile.BLOCKSIZE))

    def _write(self, content: bytes) -> None:
        with self._refusals():
            self._file.write(content)
        self._hash.update(content)
        self._size += len(content)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._complete()
        finally:
            with suppress(OSError):  # closing writes what is left in the buffer: a full disk refuses once more
                self._file.close()
            self._aside.unlink(missing_ok=True)

    def _complete(self) -> None:
        self._write(bytes(2 * tarfile.BLOCKSIZE))  # a tar archive's end mark
        with self._refusals():
            self._file.flush()
            os.fsync(self._file.fileno())
            os.replace(self._aside, self._path)
            sync_folder(self._path.parent)
        index = ShardIndex(
            images=self._images,
            size=self._size,
            sha256=self._hash.hexdigest(),
            copied=self._copied,
            skipped=self._skipped,
        )
        write_atomically(self._path.with_suffix(".json"), index.model_dump_json().encode())

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(
                f"cannot write {self._aside} ({error.strerror or error}); mend that (a full disk: make room) and run "
                "the same again, which goes on here"
            ) from None
