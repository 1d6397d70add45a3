"""ImageFolder layout (`<split>/<class>/<image>`) in a directory or a tar archive, read in place."""

import hashlib
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from cnnjepa.data.source import decode
from cnnjepa.errors import ImageError
from cnnjepa.schemas import ConfigError, FolderData
from cnnjepa.schemas.fields import nearest

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif")

# A compressed archive cannot be read at random, so it is kept unpacked in memory up to this size.
_MOST_COMPRESSED_BYTES = 8 * 2**30


class _Entry(NamedTuple):
    """An image file: path below the root (`<split>/<class>/<image>`), bytes, and where a reader finds it."""

    path: str
    size: int
    offset: int = 0


class _Reader(Protocol):
    def entries(self) -> list[_Entry]: ...

    def read(self, entry: _Entry) -> bytes: ...


class _Directory:
    def __init__(self, root: Path) -> None:
        self._root = root

    def entries(self) -> list[_Entry]:
        found = []
        for folder, _, files in os.walk(self._root, followlinks=True):
            inside = os.path.relpath(folder, self._root).replace(os.sep, "/")
            found += [
                _Entry(f"{inside}/{file}", os.stat(os.path.join(folder, file)).st_size)
                for file in files
                if file.lower().endswith(EXTENSIONS)
            ]
        return found

    def read(self, entry: _Entry) -> bytes:
        return (self._root / entry.path).read_bytes()


class _Tar:
    """An archive, plain (read at random from the file) or compressed (unpacked into memory)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._memory: bytearray | None = None
        self._entries: list[_Entry] = []
        self._file: tuple[int, int] | None = None  # (process, descriptor): a fork opens its own
        try:
            self._index()
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            raise ConfigError(f"archive {path} cannot be read ({error})") from None

    def _index(self) -> None:
        compressed = self._path.suffix != ".tar"
        with tarfile.open(self._path, "r|*" if compressed else "r:") as archive:
            for member in archive:
                if not member.isfile() or not member.name.lower().endswith(EXTENSIONS):
                    continue
                offset = member.offset_data
                if compressed:
                    offset = self._keep(archive, member)
                self._entries.append(_Entry(member.name.removeprefix("./"), member.size, offset))
            if not compressed:
                self._refuse_cut_off(archive.offset)

    def _refuse_cut_off(self, end: int) -> None:
        """tarfile takes an archive cut at a member's edge for a shorter one; a whole one ends in an empty block."""
        with open(self._path, "rb") as file:
            file.seek(end)
            if len(file.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
                raise ValueError("it ends before its end mark; the copy is not whole")

    def _keep(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> int:
        self._memory = bytearray() if self._memory is None else self._memory
        offset = len(self._memory)
        if offset + member.size > _MOST_COMPRESSED_BYTES:
            raise ValueError(
                f"more than {_MOST_COMPRESSED_BYTES / 2**30:g} GiB of images in a compressed archive; "
                "unpack it into a .tar or a directory, which are read in place"
            )
        stream = archive.extractfile(member)
        assert stream is not None
        self._memory += stream.read()
        return offset

    def entries(self) -> list[_Entry]:
        return self._entries

    def read(self, entry: _Entry) -> bytes:
        if self._memory is not None:
            return bytes(memoryview(self._memory)[entry.offset : entry.offset + entry.size])
        if self._file is None or self._file[0] != os.getpid():
            self._file = (os.getpid(), os.open(self._path, os.O_RDONLY))
        return os.pread(self._file[1], entry.size, entry.offset)


class FolderSource:
    """One split of a folder or archive."""

    def __init__(self, reader: _Reader, entries: list[_Entry], class_names: Sequence[str], where: str) -> None:
        self._reader, self._where = reader, where
        self._entries = entries
        self.class_names = class_names
        number = {name: i for i, name in enumerate(class_names)}
        self.labels: Tensor = torch.tensor([number[_class_of(e)] for e in entries], dtype=torch.int64)

    def load(self, index: int) -> Tensor:
        entry = self._entries[index]
        try:
            encoded = self._reader.read(entry)
        except OSError as error:
            raise ImageError(f"{self.name(index)} cannot be read ({error.strerror})") from None
        return decode(encoded, self.name(index))

    def name(self, index: int) -> str:
        return f"{self._where}/{self._entries[index].path}"

    def fingerprint(self) -> str:
        """Over classes, file names and sizes; a directory and an archive of it have the same."""
        digest = hashlib.sha256()
        for entry in self._entries:
            split_class_file = "/".join(entry.path.split("/")[-3:])  # a folder around them is no content
            digest.update(f"{split_class_file}\0{entry.size}\n".encode())
        return digest.hexdigest()


def _class_of(entry: _Entry) -> str:
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
    reader: _Reader = _Directory(path) if path.is_dir() else _Tar(path)
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


def _by_split(entries: list[_Entry]) -> tuple[str, dict[str, list[_Entry]]]:
    """(folder above the splits, images by split), for images at [root/]<split>/<class>/<image>."""
    deep = [entry for entry in entries if entry.path.count("/") >= 2]
    roots = {entry.path.rsplit("/", 3)[0] + "/" if entry.path.count("/") > 2 else "" for entry in deep}
    root = min(roots, key=lambda name: name.count("/"), default="")
    if sum(other.count("/") == root.count("/") for other in roots) > 1:
        raise ConfigError(
            f"several data sets lie side by side ({', '.join(sorted(roots)[:5])}); give one of them with --data PATH"
        )
    splits: dict[str, list[_Entry]] = {}
    for entry in deep:
        if entry.path.startswith(root) and entry.path.count("/") == root.count("/") + 2:
            splits.setdefault(entry.path.rsplit("/", 3)[-3], []).append(entry)
    return root, splits
