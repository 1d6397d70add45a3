"""ImageFolder layout (`<split>/<class>/<image>`) in a directory, a tar archive or a packed set, read in place."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from cnnjepa.data.archive import Tar
from cnnjepa.data.decoding import decode
from cnnjepa.data.entries import Entries
from cnnjepa.data.layout import arrange
from cnnjepa.data.readers import Directory, Reader, cannot_read
from cnnjepa.data.scan import printable
from cnnjepa.data.shards import MANIFEST, Shards
from cnnjepa.data.source import Splits
from cnnjepa.places import image_path
from cnnjepa.schemas import ConfigError, FolderData


class FolderSource:
    """One split of a folder or archive."""

    def __init__(self, reader: Reader, entries: Entries, class_names: Sequence[str], where: str) -> None:
        self._reader, self._where = reader, where
        self._entries = entries
        self.class_names = class_names
        number = {name: i for i, name in enumerate(class_names)}
        self.labels: Tensor = torch.tensor([number[_class_of(entry.path)] for entry in entries], dtype=torch.int64)

    def load(self, index: int) -> Tensor:
        return decode(self.read(index), self.name(index))

    def read(self, index: int) -> bytes:
        """Return the encoded image. Raises ImageError, which names the image, if it cannot be read."""
        try:
            return self._reader.read(self._entries[index])
        except OSError as error:
            raise cannot_read(self.name(index), error) from None

    def file_name(self, index: int) -> str:
        """Return the image's file name within its class."""
        return self._entries.path(index).rsplit("/", 1)[-1]

    def name(self, index: int) -> str:
        return f"{self._where}/{printable(self._entries.path(index))}"

    def fingerprint(self) -> str:
        """Return a digest of classes, file names and sizes. A directory and an archive of it have the same
        fingerprint."""
        digest = hashlib.sha256()
        for entry in self._entries:
            split_class_file = "/".join(entry.path.split("/")[-3:])  # a folder above the splits does not count
            digest.update(f"{split_class_file}\0{entry.size}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def same_files(self, other: "FolderSource") -> bool:
        """Return whether another split holds files of the same classes, names and sizes."""

        def below_split(source: FolderSource) -> list[tuple[list[str], int]]:
            return [(entry.path.split("/")[-2:], entry.size) for entry in source._entries]

        return len(self._entries) == len(other._entries) and below_split(self) == below_split(other)


def _class_of(path: str) -> str:
    return path.split("/")[-2]


def open_folder(config: FolderData) -> Splits:
    """Open both splits, keyed `train` and `val`. Raises ConfigError for a path that contains none."""
    path = image_path(config)
    if path.is_file() and not path.name.lower().endswith((".tar", ".tar.gz", ".tgz")):
        raise ConfigError(f"data.path {path} is a file; legal are a directory, a .tar, a .tar.gz and a .tgz")
    try:
        reader = _reader(path)
        scan = reader.scan()
    except OSError as error:
        raise ConfigError(f"data.path {path} cannot be opened ({error.strerror or error})") from None
    root, train, val, lost = arrange(scan, config.train_split, config.val_split, str(path))
    classes = sorted({_class_of(entry.path) for entry in train})
    unknown = {_class_of(entry.path): entry.path for entry in reversed(list(val))}
    unknown = {name: example for name, example in sorted(unknown.items()) if name not in set(classes)}
    if unknown:
        example = printable(next(iter(unknown.values())))
        raise ConfigError(
            f"{path}/{root}{config.val_split} has classes that {config.train_split} lacks: "
            f"{printable(', '.join(list(unknown)[:5]))} ({example}); the folders of both must have the same names"
        )
    sources = [FolderSource(reader, entries, classes, str(path)) for entries in (train, val)]
    splits = Splits({"train": sources[0], "val": sources[1]}, scan.left_out)
    splits.lost = [f"{path}/{printable(one.path)} {one.reason}" for one in lost]
    if sources[0].same_files(sources[1]):
        splits.notes.append(
            f"the validation images are the training images ({config.train_split} and {config.val_split} hold the same "
            "files), so no figure of this set is about unseen images"
        )
    return splits


def _reader(path: Path) -> Reader:
    if path.is_file():
        return Tar(path)
    return Shards(path) if (path / MANIFEST).exists() else Directory(path)
