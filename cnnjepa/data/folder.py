"""Images in a directory, a tar archive, tar shards or a packed set, read in place, with the labels that folders,
samples or a table give."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from cnnjepa.data.archive_advice import file_advice
from cnnjepa.data.decoding import decode
from cnnjepa.data.folder_index import Index, Part
from cnnjepa.data.index_cache import forget, open_index
from cnnjepa.data.pixels import RGB8
from cnnjepa.data.readers import Reader, cannot_read
from cnnjepa.data.scan import printable
from cnnjepa.data.source import Splits
from cnnjepa.errors import RunError
from cnnjepa.places import image_path
from cnnjepa.schemas import ConfigError, FolderData
from cnnjepa.schemas.pixels import PixelKind


class FolderSource:
    """One split of a folder or archive."""

    def __init__(
        self, reader: Reader, part: Part, index: Index, where: str, pixels: PixelKind = RGB8, kept: Path | None = None
    ) -> None:
        """`part` is the split of `index`, and `kept` is the file of an index that was made by an earlier run."""
        self._reader, self._where, self._root, self._kept = reader, where, index.root, kept
        self._entries, self._index = part.entries, (index, part)
        self.pixels = pixels
        self.labels: Tensor = part.labels
        self.groups: Tensor | None = part.groups
        self.class_names: Sequence[str] = index.class_names

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_index": None}  # a loader process needs no fingerprint

    def load(self, index: int) -> Tensor:
        return decode(self.read(index), self.name(index), self.pixels)

    def read(self, index: int) -> bytes:
        """Return the encoded image. Raises ImageError, which names the image, if it cannot be read, and RunError if the
        set has changed since its index was made."""
        entry = self._entries[index]
        try:
            content = self._reader.read(entry)
        except OSError as error:
            if self._kept is not None:
                forget(self._kept)
            raise cannot_read(self.name(index), error) from None
        if self._kept is not None and len(content) != entry.size:
            forget(self._kept)
            raise RunError(
                f"{self.name(index)} has {len(content):,} bytes and had {entry.size:,} when the set was last read as a "
                "whole; the index of the set is deleted, so run the same command again"
            )
        return content

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
        index, part = self._index
        return index.fingerprint_of(part)


def open_folder(config: FolderData) -> Splits:
    """Open both splits, keyed `train` and `val`. Raises ConfigError for a path that contains none."""
    path = image_path(config)
    if path.is_file() and not path.name.lower().endswith((".tar", ".tar.gz", ".tgz")):
        raise ConfigError(
            f"data.path {path} is a file; it must be a directory, a .tar, a .tar.gz or a .tgz{file_advice(path)}"
        )
    try:
        index, reader, kept = open_index(path, config)
    except OSError as error:
        raise ConfigError(f"data.path {path} cannot be opened ({error.strerror or error})") from None
    splits = Splits(
        {
            split: FolderSource(reader, part, index, str(path), config.pixels, kept)
            for split, part in (("train", index.train), ("val", index.val))
        },
        index.left_out,
    )
    splits.lost, splits.found = index.lost, index.found
    splits.notes += index.notes
    return splits
