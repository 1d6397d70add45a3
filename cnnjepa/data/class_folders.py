"""Classes named by folders of any depth, and files with the labels of a flat validation folder."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence

from cnnjepa.data.entries import Entry
from cnnjepa.data.scan import TINY_IMAGENET


class ClassFolders:
    """The class of an image by its path: the uppermost folder that directly holds an image.

    So `a/airfield/1.jpg` (Places365) is of class `a/airfield`, and `cat/more/2.jpg` of class `cat` if there is also
    `cat/1.jpg`. A folder that names the group of an image (`data.groups`), such as the folder of a video, is no part of
    its class. A last folder that all classes share (`n01443537/images`, Tiny ImageNet) is left out of their names.
    """

    def __init__(self, below: Sequence[str], groups: int | None) -> None:
        self._groups = groups
        self._holding = {"/".join(parts) for path in below if (parts := self._folders(path))}
        uppermost = {name for folder in self._holding if (name := self._uppermost(folder))}
        last = {name.rpartition("/")[2] if "/" in name else None for name in uppermost}
        shared = f"/{next(iter(last))}" if len(uppermost) > 1 and len(last) == 1 and None not in last else ""
        self._names = {name: name.removesuffix(shared) for name in uppermost}
        self._names |= {name: name for name in self._names.values()}  # a validation set may lack the shared folder
        self._known = set(self._names.values())

    def _folders(self, path: str) -> list[str]:
        """Return the folders of an image, without the one that names its group."""
        parts = path.split("/")[:-1]
        place = None if self._groups is None else self._groups - (self._groups > 0)
        if place is not None and -len(parts) <= place < len(parts):
            del parts[place]
        return parts

    def _uppermost(self, folder: str) -> str | None:
        parts = folder.split("/")
        above = ("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))
        return next((name for name in above if name in self._holding), None)

    def of(self, path: str) -> str | None:
        """Return the class of an image; None for an image in no class's folder."""
        parts = self._folders(path)
        above = ("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))
        return next((self._names[name] for name in above if name in self._names), None)

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)


def class_folders(below: Sequence[str], groups: int | str | None = None) -> ClassFolders:
    """Return the classes of images by their paths below the folder of a split. `groups` is `data.groups`."""
    return ClassFolders(below, groups if isinstance(groups, int) else None)


def common_folder(paths: Sequence[str]) -> str:
    """Return the folder in which all images lie, ending in `/`, as far as each folder on the way holds only one; empty
    if there is none. A folder that itself holds images is not gone into."""
    first, last = min(paths).split("/")[:-1], max(paths).split("/")[:-1]
    shared = []
    for one, other in zip(first, last, strict=False):
        if one != other:
            break
        shared.append(one)
    return "".join(f"{name}/" for name in shared)


def annotated(
    files: Mapping[str, Entry], folder: str, read: Callable[[Entry], bytes]
) -> tuple[dict[str, str], str | None]:
    """Return the class of every image that a file of labels in `folder` or above it names, by file name without its
    ending, and the name of that file; nothing and None if there is no such file."""
    near = [path for path in files if f"/{folder}".startswith(f"/{path}"[: -len(path.rpartition("/")[2])])]
    if not near:
        return {}, None
    path = max(near, key=len)
    text = read(files[path]).decode("utf-8", "replace")
    name = path.rpartition("/")[2]
    if name == TINY_IMAGENET:  # file, class, and the box's four numbers
        rows = [line.split("\t") for line in text.splitlines()]
        return {row[0].rsplit(".", 1)[0]: row[1] for row in rows if len(row) > 1}, name
    listed = csv.DictReader(io.StringIO(text))  # ImageId, PredictionString: class and box, perhaps several times
    found = {}
    for row in listed:
        classes = (row.get("PredictionString") or "").split()
        if classes and row.get("ImageId"):
            found[row["ImageId"]] = classes[0]
    return found, name
