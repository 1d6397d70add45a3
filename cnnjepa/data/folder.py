"""ImageFolder layout (`<split>/<class>/<image>`) in a directory, a tar archive or a packed set, read in place."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from cnnjepa.data.decoding import decode
from cnnjepa.data.readers import EXTENSIONS, Directory, Entry, Reader, Tar, cannot_read
from cnnjepa.data.shards import MANIFEST, Shards
from cnnjepa.schemas import ConfigError, FolderData
from cnnjepa.schemas.fields import nearest


class FolderSource:
    """One split of a folder or archive."""

    def __init__(self, reader: Reader, entries: list[Entry], class_names: Sequence[str], where: str) -> None:
        self._reader, self._where = reader, where
        self._entries = entries
        self.class_names = class_names
        number = {name: i for i, name in enumerate(class_names)}
        self.labels: Tensor = torch.tensor([number[_class_of(e)] for e in entries], dtype=torch.int64)

    def load(self, index: int) -> Tensor:
        return decode(self.read(index), self.name(index))

    def read(self, index: int) -> bytes:
        """The encoded image. Raises ImageError naming it when it cannot be read."""
        try:
            return self._reader.read(self._entries[index])
        except OSError as error:
            raise cannot_read(self.name(index), error) from None

    def file_name(self, index: int) -> str:
        """Of the image within its class."""
        return self._entries[index].path.rsplit("/", 1)[-1]

    def name(self, index: int) -> str:
        return f"{self._where}/{self._entries[index].path}"

    def fingerprint(self) -> str:
        """Over classes, file names and sizes; a directory and an archive of it have the same."""
        digest = hashlib.sha256()
        for entry in self._entries:
            split_class_file = "/".join(entry.path.split("/")[-3:])  # a folder around them is no content
            digest.update(f"{split_class_file}\0{entry.size}\n".encode())
        return digest.hexdigest()


def _class_of(entry: Entry) -> str:
    return entry.path.split("/")[-2]


def open_folder(config: FolderData) -> dict[str, FolderSource]:
    """The sources of both splits, keyed `train` and `val`. Raises ConfigError for a path that holds none."""
    path = config.path
    if path is None:
        raise ConfigError("data.path is not set; give the images' directory or .tar archive with --data PATH")
    if not path.exists():
        raise ConfigError(f"data.path {path} does not exist; give a directory or a .tar/.tar.gz with --data PATH")
    if path.is_file() and not path.name.lower().endswith((".tar", ".tar.gz", ".tgz")):
        raise ConfigError(f"data.path {path} is a file; legal are a directory, a .tar, a .tar.gz and a .tgz")
    reader: Reader = _reader(path)
    root, splits = _by_split(reader.entries())
    if not splits:
        raise ConfigError(
            f"data.path {path} holds no images below <split>/<class>/; legal endings are {', '.join(EXTENSIONS)}"
        )
    sources = {}
    classes: list[str] = []
    for split, name in (("train", config.train_split), ("val", config.val_split)):
        if name not in splits:
            raise ConfigError(
                f"data.{split}_split {name!r} is not in {path}; it holds {', '.join(sorted(splits))}"
                f"{nearest(name, splits)}"
            )
        entries = sorted(splits[name], key=lambda entry: entry.path)
        classes = classes or sorted({_class_of(e) for e in entries})
        unknown = sorted({_class_of(e) for e in entries} - set(classes))
        if unknown:
            raise ConfigError(
                f"{path}/{root}{name} has classes that {config.train_split} lacks: {', '.join(unknown[:5])}"
            )
        sources[split] = FolderSource(reader, entries, classes, str(path))
    return sources


def _reader(path: Path) -> Reader:
    if path.is_file():
        return Tar(path)
    return Shards(path) if (path / MANIFEST).exists() else Directory(path)


def _by_split(entries: list[Entry]) -> tuple[str, dict[str, list[Entry]]]:
    """(folder above the splits, images by split), for images at [root/]<split>/<class>/<image>."""
    deep = [entry for entry in entries if entry.path.count("/") >= 2]
    roots = {entry.path.rsplit("/", 3)[0] + "/" if entry.path.count("/") > 2 else "" for entry in deep}
    root = min(roots, key=lambda name: name.count("/"), default="")
    if sum(other.count("/") == root.count("/") for other in roots) > 1:
        raise ConfigError(
            f"several data sets lie side by side ({', '.join(sorted(roots)[:5])}); give one of them with --data PATH"
        )
    splits: dict[str, list[Entry]] = {}
    for entry in deep:
        if entry.path.startswith(root) and entry.path.count("/") == root.count("/") + 2:
            splits.setdefault(entry.path.rsplit("/", 3)[-3], []).append(entry)
    return root, splits
