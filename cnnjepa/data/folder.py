"""Images in a directory, a tar archive or a packed set, read in place, with the labels that folders or a table give."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from cnnjepa.data.archive import Tar
from cnnjepa.data.arrangement import Arrangement, arrange, groups_by_level, hold_out
from cnnjepa.data.decoding import decode
from cnnjepa.data.entries import Entries
from cnnjepa.data.label_table import arrange_by_table
from cnnjepa.data.pixels import RGB8
from cnnjepa.data.readers import Directory, Reader, cannot_read
from cnnjepa.data.scan import Scan, printable
from cnnjepa.data.shards import MANIFEST, Shards
from cnnjepa.data.source import Splits
from cnnjepa.data.tar_members import UNREADABLE
from cnnjepa.data.tar_shards import TarShards, arrange_samples
from cnnjepa.data.webdataset import is_webdataset
from cnnjepa.places import image_path
from cnnjepa.schemas import ConfigError, FolderData
from cnnjepa.schemas.data import LABEL_WORDS
from cnnjepa.schemas.pixels import PixelKind


class FolderSource:
    """One split of a folder or archive."""

    def __init__(
        self,
        reader: Reader,
        entries: Entries,
        classes: Sequence[str] | None,
        class_names: Sequence[str],
        where: str,
        root: str | None = None,
        pixels: PixelKind = RGB8,
    ) -> None:
        """`classes` are the images' classes; None without labels. `root` is the folder above the splits or classes;
        None if the images lie in `<split>/<class>/`, whatever is above."""
        self._reader, self._where, self._root = reader, where, root
        self.pixels = pixels
        self._entries = entries
        self.class_names = class_names
        number = {name: i for i, name in enumerate(class_names)}
        self.labels: Tensor = torch.tensor(
            [0] * len(entries) if classes is None else [number[name] for name in classes], dtype=torch.int64
        )

    def load(self, index: int) -> Tensor:
        return decode(self.read(index), self.name(index), self.pixels)

    def read(self, index: int) -> bytes:
        """Return the encoded image. Raises ImageError, which names the image, if it cannot be read."""
        try:
            return self._reader.read(self._entries[index])
        except OSError as error:
            raise cannot_read(self.name(index), error) from None

    def file_name(self, index: int) -> str:
        """Return the image's file name within its class. Names of folders below the set's root are part of it unless
        the layout is `<split>/<class>/<image>`, so that no two images of a class have the same name."""
        path = self._entries.path(index)
        return path.rsplit("/", 1)[-1] if self._root is None else path.removeprefix(self._root).replace("/", "__")

    def name(self, index: int) -> str:
        return f"{self._where}/{printable(self._entries.path(index))}"

    def fingerprint(self) -> str:
        """Return a digest of classes, file names and sizes. A directory and an archive of it have the same
        fingerprint."""
        digest = hashlib.sha256()
        if self._root is None:
            for entry in self._entries:
                split_class_file = "/".join(entry.path.split("/")[-3:])  # a folder above the splits does not count
                digest.update(f"{split_class_file}\0{entry.size}\n".encode("utf-8", "surrogateescape"))
            return digest.hexdigest()
        digest.update(b"labelled\n" if self.class_names else b"unlabelled\n")
        for entry, label in zip(self._entries, self.labels.tolist(), strict=True):
            name = self.class_names[label] if self.class_names else ""
            line = f"{entry.path.removeprefix(self._root)}\0{entry.size}\0{name}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def same_files(self, other: "FolderSource") -> bool:
        """Return whether another split holds files of the same classes, names and sizes."""

        def below_split(source: FolderSource) -> list[tuple[list[str], int]]:
            return [(entry.path.split("/")[-2:], entry.size) for entry in source._entries]

        return len(self._entries) == len(other._entries) and below_split(self) == below_split(other)


def open_folder(config: FolderData) -> Splits:
    """Open both splits, keyed `train` and `val`. Raises ConfigError for a path that contains none."""
    path = image_path(config)
    if path.is_file() and not path.name.lower().endswith((".tar", ".tar.gz", ".tgz")):
        raise ConfigError(f"data.path {path} is a file; it must be a directory, a .tar, a .tar.gz or a .tgz")
    try:
        reader = _reader(path, config)
        scan = reader.scan()
        if not len(scan.entries) and scan.shards:
            reader = TarShards(path, scan.shards, config.train_split, config.val_split)
            scan = reader.scan()
        found, groups, notes = _arranged(scan, reader, config, str(path))
    except OSError as error:
        raise ConfigError(f"data.path {path} cannot be opened ({error.strerror or error})") from None
    paths = [entry.path for entry in scan.entries]
    if isinstance(config.groups, int):
        groups = groups_by_level(found, paths, config.groups, str(path))
    found, origin_of_val = hold_out(found, groups, config, str(path))
    names = _in_order({found.classes[index] for index in found.train}) if found.classes else ()
    splits = Splits({}, scan.left_out)
    for split, rows in (("train", found.train), ("val", found.val)):
        classes = None if found.classes is None else [found.classes[index] for index in rows]
        root = None if found.standard else found.root
        splits[split] = FolderSource(reader, scan.entries.take(rows), classes, names, str(path), root, config.pixels)
    splits.lost = [f"{path}/{printable(one.path)} {one.reason}" for one in found.lost]
    splits.found = _in_words(found, len(names), origin_of_val)
    splits.notes += notes
    train, val = splits["train"], splits["val"]
    assert isinstance(train, FolderSource) and isinstance(val, FolderSource)
    if found.split_folders and train.same_files(val):
        splits.notes.append(
            f"the validation images are the training images ({config.train_split} and {config.val_split} hold the same "
            "files), so no figure of this set is about unseen images"
        )
    return splits


def _arranged(
    scan: Scan, reader: Reader, config: FolderData, where: str
) -> tuple[Arrangement, dict[int, str] | None, list[str]]:
    """Return the arrangement, the groups that a table gives, and notes."""
    if scan.classes is not None and isinstance(reader, TarShards) and config.labels in LABEL_WORDS:
        return arrange_samples(scan, reader.shards, config, where), None, []
    if config.labels in LABEL_WORDS:
        return arrange(scan, reader.read, config, where), None, []
    return arrange_by_table(scan, config, where)


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


def _reader(path: Path, config: FolderData) -> Reader:
    if path.is_file():
        tar = Tar(path)
        return TarShards(path, [""], config.train_split, config.val_split) if _is_shard(tar, path) else tar
    return Shards(path) if (path / MANIFEST).exists() else Directory(path)


def _is_shard(tar: Tar, path: Path) -> bool:
    """Return whether an archive is a WebDataset shard. A compressed one allows no random access, and the scan of a
    damaged one tells what is wrong."""
    try:
        return not tar.compressed and is_webdataset(path)
    except UNREADABLE:
        return False
