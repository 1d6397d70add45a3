"""Indexes of large sets, kept between runs.

They lie in `$CNNJEPA_CACHE/indexes`, by default `~/.cache/cnnjepa/indexes`, and may be deleted at any time. An index is
used only if nothing has changed: the modification time of every folder, the size, times and inode of every archive and
table, and the size of a thousand images. An image whose size has changed all the same is noticed when it is read.
"""

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from cnnjepa.data.archive import Tar
from cnnjepa.data.entries import Entries
from cnnjepa.data.folder_index import Index, Part, make_index, reader_of
from cnnjepa.data.index_file import read_index, write_index
from cnnjepa.data.readers import Directory, Reader
from cnnjepa.data.scan import LeftOut
from cnnjepa.data.shards import Shards
from cnnjepa.errors import RunError
from cnnjepa.schemas import FolderData
from cnnjepa.schemas.data import LABEL_WORDS

LEAST_IMAGES = 20_000
"""Smaller sets are read anew each time, in less than a second."""

_FORMAT = 3  # raised whenever a set would be arranged differently
_SAMPLE = 1000  # images whose size is compared
# Seconds for which a folder must have been unchanged before its index is kept: file systems round times. Assumption.
_SETTLED = 2.0
_MOST_DAYS, _MOST_BYTES = 60, 10 * 2**30  # beyond which indexes are deleted
# Settings that the arrangement depends on.
_SETTINGS = ("labels", "train_split", "val_split", "val_fraction", "val_seed", "groups")


def cache_folder() -> Path:
    """Return the folder of the indexes."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "cnnjepa"
    return Path(os.environ.get("CNNJEPA_CACHE") or usual) / "indexes"


def open_index(path: Path, config: FolderData) -> tuple[Index, Reader, Path | None]:
    """Return the index of the set at `path`, its reader, and the file of the index if it was kept there. Raises like
    `make_index`."""
    file = _file(path, config)
    if (kept := _kept(file, path, config)) is not None:
        return *kept, file
    begun = time.time()
    index, reader = make_index(path, config)
    if len(index.train.entries) + len(index.val.entries) >= LEAST_IMAGES and _may_be_kept(reader, index):
        signature = _signature(path, config, index.watched)
        newest = max((float(facts[1]) for facts in signature), default=0.0) / 1e9
        if newest < begun - _SETTLED:
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                _write(file, index, signature)
                prune(file.parent, begun)
            except (OSError, RunError) as error:
                reason = error.strerror if isinstance(error, OSError) and error.strerror else error
                index.notes.append(f"the index of {path} cannot be kept for the next run ({reason})")
    return index, reader, None


def _file(path: Path, config: FolderData) -> Path:
    key = [_FORMAT, os.path.realpath(path), *(str(getattr(config, name)) for name in _SETTINGS)]
    return cache_folder() / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]}.index"


def _may_be_kept(reader: Reader, index: Index) -> bool:
    """Return whether an index can be kept: not that of a compressed archive, which must be unpacked each time, of a
    packed set, which has its own, or of a set with parts that cannot be read at present."""
    unpacked = isinstance(reader, Tar) and reader.compressed
    return not unpacked and not isinstance(reader, Shards) and not index.lost


def _signature(path: Path, config: FolderData, watched: list[str]) -> list[tuple[int, int, int, int]]:
    """Return (size, time of modification, time of change, inode) of everything that is watched. Raises OSError."""
    splits = (config.train_split, config.val_split)
    tables = [] if config.labels in LABEL_WORDS else [Path(config.labels.replace("{split}", one)) for one in splits]
    facts = [os.stat(one) for one in (*(path / name if name else path for name in watched), *tables)]
    return [(one.st_size, one.st_mtime_ns, one.st_ctime_ns, one.st_ino) for one in facts]


def _kept(file: Path, path: Path, config: FolderData) -> tuple[Index, Reader] | None:
    """Return the index that was kept in `file`, and its reader; None if there is none, or if it is no longer right."""
    try:
        index, signature = _read(file)
        if signature != _signature(path, config, index.watched):
            return None
        reader = reader_of(path, config, index.shards)
        if isinstance(reader, Directory) and not all(_same_sizes(path, part.entries) for part in _parts(index)):
            return None
        os.utime(file)  # it was opened now; see `prune`
    except (OSError, ValueError, KeyError):  # no index, or one that was written by another version
        return None
    return index, reader


def _same_sizes(path: Path, entries: Entries) -> bool:
    """Return whether a sample of the images has the size that is recorded. Raises OSError if one is gone."""
    chosen = range(0, len(entries), max(1, len(entries) // _SAMPLE))
    return all(os.stat(path / entries.path(index)).st_size == entries[index].size for index in chosen)


def forget(file: Path) -> None:
    """Delete an index that has turned out to be wrong."""
    with contextlib.suppress(OSError):
        file.unlink(missing_ok=True)


def _parts(index: Index) -> tuple[Part, Part]:
    return index.train, index.val


def _write(file: Path, index: Index, signature: list[tuple[int, int, int, int]]) -> None:
    arrays: dict[str, NDArray[Any]] = {}
    for name, part in zip(("train", "val"), _parts(index), strict=True):
        for number, array in enumerate(part.entries.arrays):
            arrays[f"{name}{number}"] = array
        arrays[f"{name}_labels"] = part.labels.numpy()
        if part.groups is not None:
            arrays[f"{name}_groups"] = part.groups.numpy()
    facts = {
        "signature": signature,
        "class_names": index.class_names,
        "root": index.root,
        "found": index.found,
        "notes": index.notes,
        "shards": index.shards,
        "watched": index.watched,
        "fingerprints": [index.fingerprint_of(part) for part in _parts(index)],
        "left_out": index.left_out.as_tree(),
    }
    write_index(file, facts, arrays)


def _read(file: Path) -> tuple[Index, list[tuple[int, int, int, int]]]:
    facts, arrays = read_index(file)
    parts = []
    for name, fingerprint in zip(("train", "val"), facts["fingerprints"], strict=True):
        entries = Entries.of_arrays([arrays[f"{name}{number}"] for number in range(5)])
        groups = torch.from_numpy(arrays[f"{name}_groups"]) if f"{name}_groups" in arrays else None
        parts.append(Part(entries, torch.from_numpy(arrays[f"{name}_labels"]), groups, fingerprint))
    known = {name: facts[name] for name in ("class_names", "root", "found", "notes", "shards", "watched")}
    index = Index(train=parts[0], val=parts[1], lost=[], left_out=LeftOut.of_tree(facts["left_out"]), **known)
    return index, [tuple(row) for row in facts["signature"]]


def prune(folder: Path, now: float) -> None:
    """Delete the indexes that were not opened for 60 days, and beyond 10 GiB in all those that were opened longest ago,
    but none that was opened within a day. `now` is the time in seconds."""
    found: list[tuple[float, int, Path]] = []
    with contextlib.suppress(OSError):
        for file in folder.iterdir():
            with contextlib.suppress(OSError):  # another process may delete it
                facts = file.stat()
                found.append((facts.st_mtime, facts.st_size, file))
    whole = 0
    for opened, size, file in sorted(found, key=lambda one: -one[0]):
        whole += size
        days = (now - opened) / 86_400
        if days > _MOST_DAYS or (whole > _MOST_BYTES and days > 1):
            forget(file)
