"""The index of a folder or an archive: which images are in which split, with their classes, and what was left out.

Making it reads every name of the set. For large sets it is kept (`index_cache.py`), so that the next opening takes
seconds.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from cnnjepa.data.archive import Tar
from cnnjepa.data.archive_advice import archives_in_an_archive, refuse_archives
from cnnjepa.data.arrangement import FOLDERS_AS_CLASSES, Arrangement, arrange, groups_by_level, hold_out
from cnnjepa.data.entries import Entries
from cnnjepa.data.label_table import arrange_by_table
from cnnjepa.data.mask_folders import leave_out_masks
from cnnjepa.data.readers import Directory, Reader
from cnnjepa.data.scan import LeftOut, Scan, named, printable
from cnnjepa.data.shards import MANIFEST, Shards
from cnnjepa.data.tar_members import UNREADABLE
from cnnjepa.data.tar_shards import TarShards, arrange_samples
from cnnjepa.data.webdataset import is_webdataset
from cnnjepa.schemas import ConfigError, FolderData
from cnnjepa.schemas.data import LABEL_WORDS


@dataclass
class Part:
    """The images of one split."""

    entries: Entries
    labels: Tensor
    """int64 [N]; all 0 without labels."""
    groups: Tensor | None
    """Group of every image, int64 [N], numbered alike in both splits; None without `data.groups`."""
    fingerprint: str = ""
    """`fingerprint_of` the part; empty until it is needed."""


@dataclass
class Index:
    """Both splits of a set, and facts about it."""

    train: Part
    val: Part
    class_names: list[str]
    root: str | None
    """Folder above the splits or classes; None if the images lie in `<split>/<class>/`, whatever is above."""
    found: str
    notes: list[str]
    lost: list[str]
    left_out: LeftOut
    shards: list[str] | None = None
    """The archives of a folder of shards; None for another set."""
    watched: list[str] = field(default_factory=list)
    """Folders and files whose change makes the index wrong, below the set's path; empty for its path itself."""

    def fingerprint_of(self, part: Part) -> str:
        """Return a digest of classes, file names and sizes. A directory and an archive of it have the same
        fingerprint."""
        if part.fingerprint:
            return part.fingerprint
        digest = hashlib.sha256()
        if self.root is None:
            for entry in part.entries:
                split_class_file = "/".join(entry.path.split("/")[-3:])  # a folder above the splits does not count
                digest.update(f"{split_class_file}\0{entry.size}\n".encode("utf-8", "surrogateescape"))
        else:
            digest.update(b"labelled\n" if self.class_names else b"unlabelled\n")
            for entry, label in zip(part.entries, part.labels.tolist(), strict=True):
                name = self.class_names[label] if self.class_names else ""
                line = f"{entry.path.removeprefix(self.root)}\0{entry.size}\0{name}\n"
                digest.update(line.encode("utf-8", "surrogateescape"))
        part.fingerprint = digest.hexdigest()
        return part.fingerprint


def reader_of(path: Path, config: FolderData, shards: list[str] | None = None) -> Reader:
    """Return the reader of a set. `shards` are the archives of a folder of shards, if it is known to be one."""
    if shards is not None:
        return _tar_shards(path, shards, config)
    if path.is_file():
        return Tar(path)
    return Shards(path) if (path / MANIFEST).exists() else Directory(path)


def _tar_shards(path: Path, shards: list[str], config: FolderData) -> TarShards:
    by_archive = {"folders": True, "auto": None}.get(config.labels, False)
    return TarShards(path, shards, config.train_split, config.val_split, by_archive)


def make_index(path: Path, config: FolderData) -> tuple[Index, Reader]:
    """Read the names of the set at `path`, and arrange its images. Raises ConfigError for a set that cannot be arranged
    as requested, and OSError for one that cannot be opened."""
    reader = reader_of(path, config, [""] if _is_shard(path) else None)
    scan, watched = reader.scan(), [""]
    if isinstance(reader, Directory):
        watched += [*scan.folders, *scan.annotations]
        refuse_archives(path, scan, config.train_split)
        if not len(scan.entries) and scan.shards:
            reader = _tar_shards(path, scan.shards, config)
            watched += scan.shards
            scan = reader.scan()
    elif isinstance(reader, Tar) and not len(scan.entries) and scan.shards:
        raise ConfigError(archives_in_an_archive(path, scan.shards))
    leave_out_masks(scan)
    found, groups, notes = _arranged(scan, reader, config, str(path))
    paths = [entry.path for entry in scan.entries]
    if isinstance(config.groups, int):
        groups = groups_by_level(found, paths, config.groups, str(path))
    found, origin_of_val = hold_out(found, groups, config, str(path))
    names = _in_order({found.classes[index] for index in found.train}) if found.classes else []
    numbers = {name: number for number, name in enumerate(names)}
    of_group = {name: number for number, name in enumerate(sorted(set((groups or {}).values())))}

    def part(rows: list[int]) -> Part:
        labels = [0] * len(rows) if found.classes is None else [numbers[found.classes[index]] for index in rows]
        grouped = None if groups is None else torch.tensor([of_group[groups[index]] for index in rows])
        return Part(scan.entries.take(rows), torch.tensor(labels, dtype=torch.int64), grouped)

    train, val = part(found.train), part(found.val)
    if found.split_folders and _same_files(train.entries, val.entries):
        notes = [
            *notes,
            f"the validation images are the training images ({config.train_split} and {config.val_split} hold the same "
            "files), so no figure of this set is about unseen images",
        ]
    if found.origin == FOLDERS_AS_CLASSES and config.labels == "auto":
        notes = [*notes, f"folders are taken for classes ({named(names)}); if they are not, set data.labels=none"]
    index = Index(
        train,
        val,
        names,
        None if found.standard else found.root,
        _in_words(found, len(names), origin_of_val),
        notes,
        [f"{path}/{printable(one.path)} {one.reason}" for one in found.lost],
        scan.left_out,
        reader.shards if isinstance(reader, TarShards) else None,
        watched,
    )
    return index, reader


def _arranged(
    scan: Scan, reader: Reader, config: FolderData, where: str
) -> tuple[Arrangement, dict[int, str] | None, list[str]]:
    """Return the arrangement, the groups that a table gives, and notes."""
    if scan.classes is not None and isinstance(reader, TarShards) and config.labels in LABEL_WORDS:
        return arrange_samples(scan, reader.shards, config, where), None, []
    if config.labels in LABEL_WORDS:
        return arrange(scan, reader.read, config, where), None, []
    return arrange_by_table(scan, config, where)


def _same_files(train: Entries, val: Entries) -> bool:
    """Return whether both splits hold files of the same classes, names and sizes."""

    def below_split(entries: Entries) -> list[tuple[list[str], int]]:
        return [(entry.path.split("/")[-2:], entry.size) for entry in entries]

    return len(train) == len(val) and below_split(train) == below_split(val)


def _in_order(classes: set[str]) -> list[str]:
    """Return the names sorted, as numbers if all of them are numbers."""
    numbers = all(name.isascii() and name.isdigit() and name == str(int(name)) for name in classes)
    return sorted(classes, key=int if numbers else None)


def _in_words(found: Arrangement, classes: int, origin_of_val: str) -> str:
    """Return one line about what was found."""
    counts = f"{len(found.train):,} training and {len(found.val):,} validation images"
    labels = f"of {classes:,} classes" if found.classes else "without labels"
    origin = f" ({found.origin})" if found.origin else ""
    return f"{counts} {labels}{origin}" + (f"; {origin_of_val}" if origin_of_val else "")


def _is_shard(path: Path) -> bool:
    """Return whether `path` is a WebDataset shard. A compressed one allows no random access, and the scan of a damaged
    one tells what is wrong."""
    try:
        return path.is_file() and not Tar(path).compressed and is_webdataset(path)
    except UNREADABLE:
        return False
