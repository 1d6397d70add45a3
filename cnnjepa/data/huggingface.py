"""Data sets of the library `datasets`, read at random from its Arrow files. Images stay encoded until they are
loaded."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnnjepa.data.arrangement import Arrangement, hold_out
from cnnjepa.data.decoding import decode
from cnnjepa.data.huggingface_columns import Columns, find_columns
from cnnjepa.data.pixels import RGB8
from cnnjepa.data.readers import cannot_read
from cnnjepa.data.source import Splits
from cnnjepa.errors import ImageError
from cnnjepa.optional import needed
from cnnjepa.places import image_path
from cnnjepa.schemas import ConfigError, HuggingFaceData
from cnnjepa.schemas.pixels import PixelKind

_VALIDATION = ("validation", "valid", "val", "dev", "test")


class HuggingFaceSource:
    """Some rows of one split of a data set. Its Arrow files are mapped into memory, which processes share."""

    def __init__(
        self,
        rows: Any,
        images: str,
        labels: NDArray[np.int64],
        class_names: Sequence[str],
        where: str,
        pixels: PixelKind = RGB8,
    ) -> None:
        """`rows` is a `datasets.Dataset` whose column `images` gives undecoded images."""
        self._rows, self._images, self._where, self.pixels = rows, images, where, pixels
        self.labels: Tensor = torch.from_numpy(labels)
        self.class_names = class_names
        self.groups: Tensor | None = None

    def load(self, index: int) -> Tensor:
        return decode(self.read(index), self.name(index), self.pixels)

    def read(self, index: int) -> bytes:
        """Return the encoded image. Raises ImageError, which names the image, if it cannot be read."""
        content, path = _content(self._rows[int(index)][self._images])
        if content is not None:
            return content
        if path is None:
            raise ImageError(f"{self.name(index)} cannot be read (the cell is empty)")
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise cannot_read(f"{self.name(index)} ({path})", error) from None

    def name(self, index: int) -> str:
        return f"{self._where}[{index}]"

    def fingerprint(self) -> str:
        """Return a digest of class names, labels and encoded sizes."""
        digest = hashlib.sha256(repr((list(self.class_names), self.labels.tolist())).encode())
        for batch in self._rows.select_columns([self._images]).iter(1000):
            digest.update(repr([_size(*_content(cell)) for cell in batch[self._images]]).encode())
        return digest.hexdigest()


def _content(cell: Any) -> tuple[bytes | None, str | None]:
    """Return (bytes, path) of an undecoded image."""
    return (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)


def _size(content: bytes | None, path: str | None) -> int:
    if content is not None:
        return len(content)
    try:
        return os.stat(path or "").st_size
    except OSError:
        return -1


def open_huggingface(config: HuggingFaceData) -> Splits:
    """Open both splits. Raises ConfigError for a set, split or column that does not exist, and for labels that are
    neither numbers nor text."""
    library = needed("datasets", "datasets", "data.source=huggingface")
    where = str(image_path(config)) if config.hub is None else config.hub
    found = _loaded(library, config, where)
    names = _splits(found, config, where)
    columns = find_columns(library, found[names["train"]].features, config, where)
    parts = {split: _part(library, found[name], columns, f"{where}/{name}", config) for split, name in names.items()}
    classes = _classes({split: texts for split, (_, texts, _) in parts.items()}, columns, where)
    sources = {
        split: _source(rows, texts, groups, columns, classes, f"{where}/{names[split]}", config)
        for split, (rows, texts, groups) in parts.items()
    }
    origin, held_out = f"column {columns.label}" if classes else "no column of labels", ""
    if "val" not in sources:
        held_out = _hold_out(sources, parts["train"][2], columns.image, config, where)
    splits = Splits({split: sources[split] for split in ("train", "val")})
    counts = [f"{splits[split].labels.numel():,}" for split in ("train", "val")]
    labels = f"of {len(classes):,} classes" if classes else "without labels"
    used = " and ".join(f"{split} = {name}" for split, name in names.items())
    splits.found = f"{counts[0]} training and {counts[1]} validation images {labels} ({origin}; {used})"
    splits.found += f"; {held_out}" if held_out else ""
    return splits


def _loaded(library: Any, config: HuggingFaceData, where: str) -> dict[str, Any]:
    """Return the splits of the set, by name."""
    library.disable_progress_bars()
    path = config.path
    try:
        if path is None:
            offline = None if config.download else library.DownloadConfig(local_files_only=True)
            found = library.load_dataset(where, config.subset, download_config=offline)
        elif (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            found = library.load_from_disk(where)
        elif path.is_file():
            found = library.load_dataset("parquet", data_files=where)
        else:
            found = library.load_dataset(where, config.subset)
    except Exception as error:  # the library raises a dozen kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        if path is None:
            raise ConfigError(
                f"data.hub {where!r} cannot be opened ({reason}). It must be in the cache of the library datasets: set "
                "data.download=true where there is a network, or give a copy with --data PATH"
            ) from None
        raise ConfigError(
            f"data.path {where} cannot be opened by the library datasets ({reason}); it reads what "
            "save_to_disk wrote, Parquet files, and folders of images"
        ) from None
    return dict(found) if isinstance(found, dict) else {config.train_split: found}


def _splits(found: dict[str, Any], config: HuggingFaceData, where: str) -> dict[str, str]:
    """Return the names of the splits that are used, keyed `train` and, if there is one, `val`."""
    there = ", ".join(found)
    if config.train_split not in found:
        raise ConfigError(f"data.train_split {config.train_split!r} is not in {where}; must be one of {there}")
    if config.val_split is not None and config.val_split not in found:
        raise ConfigError(f"data.val_split {config.val_split!r} is not in {where}; must be one of {there}")
    others = (name for name in _VALIDATION if name in found and name != config.train_split)
    val = config.val_split or next(others, None)
    return {"train": config.train_split} | ({"val": val} if val else {})


def _part(
    library: Any, rows: Any, columns: Columns, where: str, config: HuggingFaceData
) -> tuple[Any, list[Any] | None, list[str] | None]:
    """Return the rows with undecoded images, and the cells of labels and groups."""
    for column in filter(None, (columns.image, columns.label, config.groups)):
        if column not in rows.features:
            raise ConfigError(f"{where} has no column {column!r}; it has {', '.join(rows.features)}")
    labels = None if columns.label is None else list(rows[columns.label])
    groups = None if config.groups is None else [str(value) for value in rows[config.groups]]
    if isinstance(rows.features[columns.image], library.Image):
        rows = rows.cast_column(columns.image, library.Image(decode=False))
    return rows, labels, groups


def _classes(labels: dict[str, list[Any] | None], columns: Columns, where: str) -> list[Any]:
    """Return the classes in the order of their numbers; empty without labels. Raises ConfigError for a cell without a
    label, and for a class that training lacks."""
    if columns.label is None:
        return []
    training, every = set(labels["train"] or ()), set[Any]().union(*(cells or () for cells in labels.values()))
    blank = every & {None, "", -1}
    if blank:
        raise ConfigError(
            f"{where}: column {columns.label} has rows without a label ({next(iter(blank))!r}); choose another split "
            "with data.val_split, or use data.labels=none"
        )
    if columns.names is not None:
        return list(range(len(columns.names)))
    if unknown := every - training:
        raise ConfigError(f"{where}: validation has classes that training lacks: {', '.join(map(str, unknown))}")
    if len(training) < 2:
        columns.label = None
        return []
    return sorted(training)


def _source(
    rows: Any,
    cells: list[Any] | None,
    groups: list[str] | None,
    columns: Columns,
    classes: list[Any],
    where: str,
    config: HuggingFaceData,
) -> HuggingFaceSource:
    number = {value: place for place, value in enumerate(classes)}
    labels = np.zeros(len(rows), np.int64)
    if classes and cells is not None:
        labels = np.array([number[value] for value in cells], np.int64)
    names = [] if not classes else columns.names or [str(value) for value in classes]
    source = HuggingFaceSource(rows, columns.image, labels, names, where, config.pixels)
    if groups is not None:
        places = {name: place for place, name in enumerate(sorted(set(groups)))}
        source.groups = torch.tensor([places[name] for name in groups])
    return source


def _hold_out(
    sources: dict[str, HuggingFaceSource], groups: list[str] | None, image: str, config: HuggingFaceData, where: str
) -> str:
    """Divide the training images into both splits. Returns a sentence about it."""
    whole = sources["train"]
    of_class = {i: str(label) for i, label in enumerate(whole.labels.tolist())} if whole.class_names else None
    every = Arrangement("", list(range(whole.labels.numel())), [], of_class, "")
    found, sentence = hold_out(every, None if groups is None else dict(enumerate(groups)), config, where)
    for split, chosen in (("train", found.train), ("val", found.val)):
        few = HuggingFaceSource(
            whole._rows.select(chosen),
            image,
            whole.labels[chosen].numpy(),
            whole.class_names,
            whole._where,
            whole.pixels,
        )
        few.groups = None if whole.groups is None else whole.groups[chosen]
        sources[split] = few
    return sentence
