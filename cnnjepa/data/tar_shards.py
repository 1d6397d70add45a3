"""A folder of plain `.tar` archives, read in place as one set: parts of a folder of images, or WebDataset shards."""

import errno
import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from cnnjepa.data.archive import Tar
from cnnjepa.data.arrangement import Arrangement, checked
from cnnjepa.data.entries import Entry
from cnnjepa.data.scan import Reason, Scan, Scanning
from cnnjepa.data.tar_members import UNREADABLE
from cnnjepa.data.webdataset import is_webdataset, scan_samples
from cnnjepa.schemas import ConfigError, FolderData
from cnnjepa.schemas.data import DEFAULT_VAL_SPLIT

# Other words for the two splits in the names of shards.
_TRAINING, _VALIDATION = ("train", "training"), ("val", "valid", "validation")
_OTHERS = ("dev", "test", "testing")

_MOST_OPEN = 128  # archives that a process keeps open


def split_of(shard: str, train: str, val: str) -> str:
    """Return the split that the path of a shard names (`train-000.tar`, `train/000.tar`, `pets-validation-00.tar`):
    `train`, `val`, another one such as `test`, or nothing."""
    training = (train, *(_TRAINING if train == "train" else ()))
    validation = (val, *(_VALIDATION if val == DEFAULT_VAL_SPLIT else ()))
    for split, words in ((train, training), (val, validation)):
        if any(_has(shard, word) for word in words):
            return split
    return next((word for word in (*_TRAINING, *_VALIDATION, *_OTHERS) if _has(shard, word)), "")


def _has(shard: str, word: str) -> bool:
    return re.search(rf"(^|[^A-Za-z0-9]){re.escape(word)}($|[^A-Za-z0-9])", shard) is not None


def class_of(shard: str) -> str:
    """Return the class that the name of an archive gives."""
    return PurePosixPath(shard).stem


def are_classes(shards: Sequence[str], train: str, val: str) -> bool:
    """Return whether the names of archives are those of classes: ImageNet's (`n01440764.tar`), or names that are not
    numbered alike, as parts of a set are (`part-0.tar`, `part-1.tar`). An archive that is called as a split is does not
    count."""
    names = {class_of(shard) for shard in shards if not _is_split(shard, train, val)}
    if len(names) > 1 and all(re.fullmatch(r"n[0-9]{8}", name) for name in names):
        return True
    return len({re.sub(r"[0-9]+", "#", name) for name in names}) > 1


def _is_split(shard: str, train: str, val: str) -> bool:
    return split_of(class_of(shard), train, val) != ""


class _Opened:
    """A file descriptor that is closed when nothing uses it any more."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


class TarShards:
    """Reads several archives, at random positions. Reads use no file position, so forked processes share the files."""

    def __init__(self, root: Path, shards: Sequence[str], train: str, val: str, by_archive: bool | None = None) -> None:
        """`shards` are the archives' paths below `root`, or one empty path if `root` is the archive; `train` and `val`
        are the names of the splits. `by_archive` tells whether the images of an archive without folders are of the
        class that the archive's name gives; None means that the names decide (`are_classes`)."""
        self._root, self.shards, self._splits = root, list(shards), (train, val)
        self._by_archive = by_archive
        self._files: dict[int, _Opened] = {}

    def scan(self) -> Scan:
        """Find the images of all archives. In WebDataset shards, `<shard>/<member>` is the path of an image. In other
        archives it is the member's path, in the folder of the split that the archive's name gives, and in a folder of
        the archive's name if that is a class. Raises ConfigError for a damaged archive."""
        for shard in self.shards:
            if Tar(self._root / shard).compressed:
                raise ConfigError(
                    f"archive {self._root / shard} is compressed, whatever its name; unpack it to a .tar, because the "
                    "images of a compressed archive cannot be read one by one"
                )
        joined = any(self._reads(shard, is_webdataset) for shard in self.shards)
        scanning = Scanning(labelled=joined)
        if joined:
            for number, shard in enumerate(self.shards):
                below = f"{shard}/" if shard else ""
                self._reads(shard, partial(scan_samples, number=number, prefix=below, scanning=scanning))
            return scanning.done()
        parts = [Tar(self._root / shard).scan() for shard in self.shards]
        whole = zip(self.shards, parts, strict=True)
        flat = len(parts) > 1 and not any(part.folders for shard, part in whole if not _is_split(shard, *self._splits))
        by_class = flat and (are_classes(self.shards, *self._splits) if self._by_archive is None else self._by_archive)
        for number, (shard, part) in enumerate(zip(self.shards, parts, strict=True)):
            self._record(number, shard, part, by_class, scanning)
        return scanning.done()

    def _reads(self, shard: str, work: Callable[[Path], Any]) -> Any:
        try:
            return work(self._root / shard)
        except UNREADABLE as error:
            raise ConfigError(f"archive {self._root / shard} cannot be read ({error})") from None

    def _record(self, number: int, shard: str, part: Scan, by_class: bool, scanning: Scanning) -> None:
        """Record the images of an archive that is a part of a folder, or with `by_class` the whole of a class."""
        split = split_of(shard, *self._splits)
        named = split and not any(f"/{split}/" in f"/{folder}/" for folder in part.folders)
        prefix = f"{split}/" if named else ""
        if by_class and not _is_split(shard, *self._splits):
            prefix += f"{class_of(shard)}/"
            scanning.folders.add(prefix.removesuffix("/"))
        for entry in (*part.entries, *part.annotations.values()):
            scanning.file(f"{prefix}{entry.path}", entry.size, entry.offset, number)
        scanning.folders |= {f"{prefix}{folder}" for folder in part.folders}
        scanning.lost += [lost._replace(path=f"{prefix}{lost.path}") for lost in part.lost]
        scanning.left_out.include(part.left_out)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}

    def read(self, entry: Entry) -> bytes:
        if entry.offset < 0:
            raise FileNotFoundError(errno.ENOENT, "a link to a file that is not in its archive")
        file = self._files.get(entry.shard)
        if file is None:
            file = self._files[entry.shard] = _Opened(self._root / self.shards[entry.shard])
            if len(self._files) > _MOST_OPEN:  # a thread that reads one of them keeps it open until it has read
                self._files.pop(next(iter(self._files)), None)
        return os.pread(file.descriptor, entry.size, entry.offset)


def arrange_samples(scan: Scan, shards: Sequence[str], config: FolderData, where: str) -> Arrangement:
    """Arrange the images of WebDataset shards: splits by the names of the shards, classes by the samples. Raises
    ConfigError if no image is of the training split, or if `data.labels` asks for folders."""
    assert scan.classes is not None
    if config.labels == "folders":
        raise ConfigError(
            f"data.labels=folders: {where} holds WebDataset shards, whose samples carry the labels; use "
            "data.labels=auto or none"
        )
    train, val = config.train_split, config.val_split
    split = [split_of(shard, train, val) for shard in shards]
    if not any(split):
        split = [train] * len(shards)
    named = {name for name in scan.classes if name}
    labelled = config.labels != "none" and len(named) > 1
    rows: dict[str, list[int]] = {train: [], val: []}
    for index, shard in enumerate(scan.entries.shards.tolist()):
        if split[shard] not in rows:
            scan.left_out.add(Reason.OUTSIDE, scan.entries.path(index))
        elif labelled and not scan.classes[index]:
            scan.left_out.add(Reason.CLASSLESS, scan.entries.path(index))
        else:
            rows[split[shard]].append(index)
    if not rows[train]:
        there = sorted({name or "no split" for name in split})
        raise ConfigError(
            f"data.train_split {train!r}: no shard of {where} with images has it in its name; there are shards of "
            f"{', '.join(there)}"
        )
    classes = dict(enumerate(scan.classes)) if labelled else None
    fields = "" if labelled else ", without labels in their samples" if not named else ", of one class"
    origin = f"{len(shards):,} WebDataset shard{'s' * (len(shards) > 1)}{fields}"
    found = Arrangement("", rows[train], rows[val], classes, origin, lost=scan.lost)
    return checked(found, [entry.path for entry in scan.entries] if classes else [], config, where)
