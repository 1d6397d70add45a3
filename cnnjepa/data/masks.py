"""Masks of images: the class of every pixel, from a folder of PNG files next to the images or from the embedded set."""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol, cast

import numpy as np
import torch
from PIL.PngImagePlugin import PngImageFile
from torch import Tensor

from cnnjepa.data.mask_folders import IMAGES, MASKS
from cnnjepa.data.open import DataSet
from cnnjepa.data.png import needed_chunks
from cnnjepa.data.scan import printable
from cnnjepa.data.source import ImageSource
from cnnjepa.data.synthetic import MASK_NAMES, render_masks
from cnnjepa.errors import ImageError
from cnnjepa.schemas import ConfigError, DataConfig, SyntheticData

Split = Literal["train", "val"]

IGNORED = 255
"""Value of pixels that are not judged."""

_BLOCK = 256  # embedded masks drawn at a time
_MODES = ("1", "L", "P", "I;16", "I")  # Pillow's names of what has one channel; of a palette, the indices are read


class MaskSource(Protocol):
    """The masks of a set."""

    class_names: Sequence[str]
    """Names of the classes by number; empty if masks have only numbers."""

    def mask(self, split: Split, index: int, image: Tensor) -> Tensor:
        """Return the mask of an image, which is given as it was read, [K, H, W]: uint8 [H, W]. Raises ConfigError if
        they do not fit each other, and ImageError if the mask cannot be read."""

    def name(self, split: Split, index: int) -> str:
        """Return a name by which a user can find the mask."""

    def fingerprint(self) -> str:
        """Return a hex digest of the masks: of names and sizes, or of what determines drawn ones."""


def folder_of_images(path: Path) -> Path:
    """Return the folder `images` of a set that holds the folders `images` and `masks`, and otherwise `path`."""
    both = (path / IMAGES).is_dir() and (path / MASKS).is_dir()
    return path / IMAGES if both else path


def masks_of(section: DataConfig, data: DataSet, asked: Path | None = None) -> MaskSource | None:
    """Return the masks of a set: those in the folder `asked`, or in a folder `masks` next to the images, or of the
    embedded images; None if there are none. Raises ConfigError if an image has no mask."""
    if section.DRAWN:
        if asked is not None:
            raise ConfigError(f"segment.masks={asked}: the embedded images have masks of their own; leave it out")
        return EmbeddedMasks(cast(SyntheticData, section))
    path = section.images_path
    if path is None:
        return None
    folder = asked or path.absolute().parent / MASKS
    if asked is None and (not folder.is_dir() or path.absolute() == folder):
        return None
    return FolderMasks(folder, path, {"train": data.train, "val": data.val})


class EmbeddedMasks:
    """The masks of the images that this program draws."""

    class_names: Sequence[str] = MASK_NAMES

    def __init__(self, section: SyntheticData) -> None:
        self._size, self._seed = section.drawn_size, section.drawing_seed
        self._drawn: tuple[Split, int, Tensor] = ("train", -1, torch.empty(0))

    def mask(self, split: Split, index: int, image: Tensor) -> Tensor:
        block = index // _BLOCK
        if self._drawn[:2] != (split, block):
            numbers = range(block * _BLOCK, (block + 1) * _BLOCK)
            self._drawn = (split, block, torch.from_numpy(render_masks(split, numbers, self._size, self._seed)))
        return self._drawn[2][index % _BLOCK]

    def name(self, split: Split, index: int) -> str:
        return f"mask of synthetic {split} image {index}"

    def fingerprint(self) -> str:
        return hashlib.sha256(f"synthetic masks {self._size} {self._seed}".encode()).hexdigest()


class FolderMasks:
    """PNG files of one channel in a folder, at the paths that the images have below theirs."""

    class_names: Sequence[str] = ()

    def __init__(self, folder: Path, images: Path, sources: dict[Split, ImageSource]) -> None:
        """`images` is the folder of the images. Raises ConfigError if the folder holds no mask, or lacks one."""
        if not folder.is_dir():
            raise ConfigError(f"segment.masks {folder} is not a folder; give the folder that holds the masks")
        found = {
            printable(file.relative_to(folder).with_suffix("").as_posix()): file
            for file in sorted(folder.rglob("*"))
            if file.suffix.lower() == ".png" and not file.name.startswith(".")
        }
        if not found:
            raise ConfigError(f"{folder} holds no masks; they are PNG files with the names of their images")
        self._files: dict[Split, list[Path]] = {}
        lacking: list[str] = []
        for split, source in sources.items():
            self._files[split] = []
            for index in range(source.labels.numel()):
                stem = str(PurePosixPath(source.name(index).removeprefix(f"{images}/")).with_suffix(""))
                if stem in found:
                    self._files[split].append(found[stem])
                else:
                    lacking.append(f"{source.name(index)} has no mask {folder / stem}.png")
        if lacking:
            more = f" (and {len(lacking) - 1:,} other images have none)" if len(lacking) > 1 else ""
            raise ConfigError(f"{lacking[0]}{more}; add it, or leave the image out of the set")
        self._folder = folder

    def mask(self, split: Split, index: int, image: Tensor) -> Tensor:
        file = self._files[split][index]
        mask = read_mask(file)
        if mask.shape != image.shape[1:]:
            (height, width), (tall, wide) = mask.shape, image.shape[1:]
            raise ConfigError(
                f"{file} is {width}x{height} pixels, and its image {wide}x{tall}; a mask must have its image's size"
            )
        return mask

    def name(self, split: Split, index: int) -> str:
        return str(self._files[split][index])

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for split, files in self._files.items():
            for file in files:
                digest.update(f"{split} {printable(str(file.relative_to(self._folder)))} ".encode())
                digest.update(f"{file.stat().st_size}\n".encode())
        return digest.hexdigest()


def read_mask(file: Path) -> Tensor:
    """Return the classes in a PNG file of one channel, uint8 [H, W]; of a palette, the indices. Raises ConfigError for
    a file that holds no classes, and ImageError for one that cannot be read."""
    try:
        encoded, _, _ = needed_chunks(file.read_bytes())
        with PngImageFile(io.BytesIO(encoded)) as image:
            mode, values = image.mode, np.asarray(image)
    except Exception as error:  # Pillow raises a dozen kinds for damaged files
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ImageError(f"{file} cannot be read as a PNG mask ({reason})") from None
    if mode not in _MODES:
        raise ConfigError(
            f"{file} has colours ({mode}); a mask has one channel of whole numbers, the class of every pixel"
        )
    if values.size and int(values.max()) > IGNORED:
        raise ConfigError(
            f"{file} has the value {values.max()}; classes are 0 to {IGNORED - 1}, and {IGNORED} is ignored"
        )
    bits = encoded[24]
    if mode == "L" and bits < 8:  # Pillow stretches 2 and 4 bits to 0 to 255
        values = values // (255 // (2**bits - 1))
    return torch.from_numpy(values.astype(np.uint8))
