"""Result of a scan: the image files that were found, and those that were left out, by reason. Every reader of files
returns one."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from cnnjepa.data.entries import Entries, Entry

EXTENSIONS = (
    ".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".npy", ".avif", ".heic", ".heif",
)  # fmt: skip

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
"""Endings of compressed archives."""

# Files that give the labels of a flat validation folder: Tiny ImageNet's (file, class, box) and ImageNet's as Kaggle
# distributes it (ImageId, PredictionString).
TINY_IMAGENET, IMAGENET = "val_annotations.txt", "LOC_val_solution.csv"

# Links to one folder that are followed. A set may link to a class's folder from a few places; folders that link to each
# other twice, 40 deep, are 2^40 paths.
MOST_LINKS_TO_A_FOLDER = 100

_EXAMPLES = 3  # names listed per reason


class Reason(Enum):
    """Why a file is not an image of the set. The value follows a count in messages."""

    ENDING = "without an image's ending"
    DEEP = "in folders below a class's folder"
    LOOSE = "in a split but in no class's folder"
    OUTSIDE = "outside the two splits"
    UNLISTED = "not in the table of labels"
    UNLABELLED = "in the validation folder without labels"
    CLASS = "class folder(s) without any image"
    BROKEN = "link(s) to nothing"
    CLOSED = "folder(s) that cannot be opened"
    LOOP = "link(s) to a folder that holds them"
    REPEATED = "link(s) to a folder that was read many times before"
    HIDDEN = "hidden (their names begin with a dot)"
    MAC = "metadata of macOS (._*, __MACOSX)"
    REPLACED = "replaced by a later file of the same name in the archive"
    SPECIAL = "not regular (pipe, socket, device)"
    SPARSE = "stored as sparse files, which cannot be read in place"
    PACKED = "unreadable when the set was packed"
    MASK = "masks of images, in a folder next to theirs"
    SAMPLE = "further images of a WebDataset sample, of which one is used"
    CLASSLESS = "in WebDataset samples without a label"


class LeftOut:
    """Files and folders that a scan left out: their number and some of their names, by reason. The path of a folder
    ends in `/`."""

    def __init__(self) -> None:
        self.counts: Counter[Reason] = Counter()
        self._examples: dict[Reason, list[str]] = {}
        self._endings: Counter[str] = Counter()

    def add(self, reason: Reason, path: str) -> None:
        """Record one file or folder, by its path below the root."""
        self.counts[reason] += 1
        examples = self._examples.setdefault(reason, [])
        if len(examples) < _EXAMPLES:
            examples.append(printable(path))
        if reason is Reason.ENDING:
            name = path.rsplit("/", 1)[-1]
            self._endings[f".{printable(name.rsplit('.', 1)[1])}" if "." in name else "none"] += 1

    def include(self, other: "LeftOut") -> None:
        """Add what another scan left out."""
        self.counts += other.counts
        self._endings += other._endings
        for reason, names in other._examples.items():
            self._examples[reason] = [*self._examples.get(reason, []), *names][:_EXAMPLES]

    def as_tree(self) -> dict[str, Any]:
        """Return the content as JSON's types."""
        return {
            "counts": {reason.name: count for reason, count in self.counts.items()},
            "examples": {reason.name: names for reason, names in self._examples.items()},
            "endings": dict(self._endings),
        }

    @classmethod
    def of_tree(cls, tree: dict[str, Any]) -> "LeftOut":
        """Return what `as_tree` gave."""
        left_out = cls()
        left_out.counts = Counter({Reason[name]: count for name, count in tree["counts"].items()})
        left_out._examples = {Reason[name]: names for name, names in tree["examples"].items()}
        left_out._endings = Counter(tree["endings"])
        return left_out

    def lines(self) -> list[str]:
        """Return one line per reason: count, reason and examples. Reasons that most often cost images come first."""
        return [self._line(reason, self.counts[reason]) for reason in Reason if self.counts[reason]]

    def _line(self, reason: Reason, count: int) -> str:
        what = reason.value
        if reason is Reason.ENDING:
            what += f" ({', '.join(f'{ending} {n:,}' for ending, n in self._endings.most_common(4))})"
        more = ", …" if count > _EXAMPLES else ""
        return f"{count:,} {what}: {', '.join(self._examples[reason])}{more}"


class Lost(NamedTuple):
    """Something expected that cannot be read: a closed folder, or a broken link that may have pointed to a folder."""

    path: str
    reason: str


@dataclass
class Scan:
    """Content found below a root."""

    entries: Entries
    """Image files, sorted by path. A broken link with an image extension is included, with 0 bytes: it cannot be
    read."""
    left_out: LeftOut
    folders: set[str]
    """Paths of the folders found."""
    lost: list[Lost]
    annotations: dict[str, Entry]
    """Files that give labels of validation images, by path."""
    classes: list[str] | None = None
    """Class of every entry if the images carry their labels (WebDataset), empty for an image without one; else
    None."""
    shards: list[str] = field(default_factory=list)
    """Archives that were found, by path; the entries of a set of shards count them from 0."""
    compressed: list[str] = field(default_factory=list)
    """Compressed archives that were found, by path."""


class Scanning:
    """Collects a scan. The rules for names are here, so that a directory and an archive of it give the same result."""

    def __init__(self, labelled: bool = False) -> None:
        """`labelled` tells whether images carry their labels."""
        self._labelled = labelled
        self.left_out = LeftOut()
        self.folders: set[str] = set()
        self.lost: list[Lost] = []
        self._annotations: dict[str, Entry] = {}
        self._read: Counter[Hashable] = Counter()
        self._paths: list[str] = []
        self._sizes: list[int] = []
        self._offsets: list[int] = []
        self._shards: list[int] = []
        self._classes: list[str] = []
        self._archives: list[str] = []
        self._compressed: list[str] = []

    def passes_over(self, path: str, folder: bool) -> bool:
        """Return whether the name alone excludes the path and everything below it; if so, record it as left out."""
        name = path.rsplit("/", 1)[-1]
        if not (name.startswith(".") or name == "__MACOSX"):
            return False
        reason = Reason.MAC if name.startswith("._") or name == "__MACOSX" else Reason.HIDDEN
        self.left_out.add(reason, f"{path}/" if folder else path)
        return True

    def file(self, path: str, size: int, offset: int = 0, shard: int = 0, of_class: str = "") -> None:
        """Record a regular file, image or not. `of_class` is the class of an image that carries its label."""
        if is_annotation(path):
            self._annotations[path] = Entry(path, size, offset, shard)
            return
        if not is_image(path):
            self.left_out.add(Reason.ENDING, path)
            if path.lower().endswith(".tar"):
                self._archives.append(path)
            elif path.lower().endswith(COMPRESSED):
                self._compressed.append(path)
            return
        self._paths.append(path)
        self._classes.append(of_class)
        self._sizes.append(size)
        self._offsets.append(offset)
        self._shards.append(shard)

    def reads_again(self, path: str, folder: Hashable) -> bool:
        """Return whether a folder may be read at this path; if it was read too often, record the path as left out.
        `folder` identifies the folder itself."""
        self._read[folder] += 1
        if self._read[folder] <= MOST_LINKS_TO_A_FOLDER:
            return True
        self.left_out.add(Reason.REPEATED, f"{path}/")
        return False

    def broken_link(self, path: str, reason: str) -> None:
        """Record a broken link. It counts as an image if it has an image extension, and as a possible folder if it has
        no extension."""
        self.left_out.add(Reason.BROKEN, path)
        if is_image(path):
            self.file(path, 0, -1)
        elif "." not in path.rsplit("/", 1)[-1]:
            self.lost.append(Lost(path, f"cannot be read ({reason})"))

    def closed_folder(self, path: str, reason: str) -> None:
        """Record a folder that the system does not allow to be read."""
        self.left_out.add(Reason.CLOSED, f"{path}/")
        self.lost.append(Lost(path, f"cannot be opened ({reason})"))

    def done(self) -> Scan:
        """Return the scan, sorted."""
        order = sorted(range(len(self._paths)), key=self._paths.__getitem__)

        def ordered(values: list[Any]) -> list[Any]:
            return [values[index] for index in order]

        entries = Entries(
            [self._paths[index] for index in order],
            ordered(self._sizes),
            ordered(self._offsets),
            ordered(self._shards),
        )
        classes = ordered(self._classes) if self._labelled else None
        shards = sorted(self._archives)
        compressed = sorted(self._compressed)
        return Scan(entries, self.left_out, self.folders, self.lost, self._annotations, classes, shards, compressed)


def is_image(path: str) -> bool:
    """Return whether a name has an image extension."""
    return path.lower().endswith(EXTENSIONS)


def is_annotation(path: str) -> bool:
    """Return whether a name is that of a file with labels of validation images."""
    return path.rsplit("/", 1)[-1] in (TINY_IMAGENET, IMAGENET)


def printable(path: str) -> str:
    """Return a path in which bytes that are not UTF-8 are written as `\\xff`."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def named(names: Sequence[str]) -> str:
    """Return the first few names, in one line."""
    return ", ".join(names[:_EXAMPLES]) + (", …" if len(names) > _EXAMPLES else "")
