"""A scan: the image files that were found, and what was left out, by reason. Every reader of files gives one."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from cnnjepa.data.entries import Entries

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif")

_EXAMPLES = 3  # named for each reason


class Reason(Enum):
    """Why a file is no image of the set. The value follows a count."""

    ENDING = "without an image's ending"
    DEEP = "in folders below a class's folder"
    LOOSE = "in a split but in no class's folder"
    OUTSIDE = "outside the two splits"
    CLASS = "class folder(s) without any image"
    BROKEN = "link(s) to nothing"
    CLOSED = "folder(s) that cannot be opened"
    LOOP = "link(s) to a folder that holds them"
    HIDDEN = "hidden (their names begin with a dot)"
    MAC = "metadata of macOS (._*, __MACOSX)"
    REPLACED = "replaced by a later file of the same name in the archive"
    SPECIAL = "not regular (pipe, socket, device)"
    SPARSE = "stored as sparse files, which cannot be read in place"
    PACKED = "unreadable when the set was packed"


class LeftOut:
    """What a scan leaves out: how many files (or folders, whose path ends in `/`) and some names, by reason."""

    def __init__(self) -> None:
        self.counts: Counter[Reason] = Counter()
        self._examples: dict[Reason, list[str]] = {}
        self._endings: Counter[str] = Counter()

    def add(self, reason: Reason, path: str) -> None:
        """One file or folder, by its path below the root."""
        self.counts[reason] += 1
        examples = self._examples.setdefault(reason, [])
        if len(examples) < _EXAMPLES:
            examples.append(printable(path))
        if reason is Reason.ENDING:
            name = path.rsplit("/", 1)[-1]
            self._endings[f".{printable(name.rsplit('.', 1)[1])}" if "." in name else "none"] += 1

    def lines(self) -> list[str]:
        """One line for each reason: count, reason and examples; those first that most often lose images."""
        return [self._line(reason, self.counts[reason]) for reason in Reason if self.counts[reason]]

    def _line(self, reason: Reason, count: int) -> str:
        what = reason.value
        if reason is Reason.ENDING:
            what += f" ({', '.join(f'{ending} {n:,}' for ending, n in self._endings.most_common(4))})"
        more = ", …" if count > _EXAMPLES else ""
        return f"{count:,} {what}: {', '.join(self._examples[reason])}{more}"


class Lost(NamedTuple):
    """What should be there and cannot be read: a closed folder, a link to nothing that may have been a folder."""

    path: str
    reason: str


@dataclass
class Scan:
    """What was found below a root."""

    entries: Entries
    """Image files, sorted by path. A link to nothing with an image's ending is one, of 0 bytes: it cannot be read."""
    left_out: LeftOut
    folders: set[str]
    """Paths of the folders that were seen."""
    lost: list[Lost]


class Scanning:
    """Collects a scan; the rules for names are here, so that a directory and an archive of it give the same."""

    def __init__(self) -> None:
        self.left_out = LeftOut()
        self.folders: set[str] = set()
        self.lost: list[Lost] = []
        self._paths: list[str] = []
        self._sizes: list[int] = []
        self._offsets: list[int] = []
        self._shards: list[int] = []

    def passes_over(self, path: str, folder: bool) -> bool:
        """Whether a name says that nothing below it is an image of the set; if so, it is counted."""
        name = path.rsplit("/", 1)[-1]
        if not (name.startswith(".") or name == "__MACOSX"):
            return False
        reason = Reason.MAC if name.startswith("._") or name == "__MACOSX" else Reason.HIDDEN
        self.left_out.add(reason, f"{path}/" if folder else path)
        return True

    def file(self, path: str, size: int, offset: int = 0, shard: int = 0) -> None:
        """A regular file, image or not."""
        if not is_image(path):
            self.left_out.add(Reason.ENDING, path)
            return
        self._paths.append(path)
        self._sizes.append(size)
        self._offsets.append(offset)
        self._shards.append(shard)

    def broken_link(self, path: str, reason: str) -> None:
        """A link to nothing. It stands for an image if its ending is one's, and may stand for a folder if it has
        none."""
        self.left_out.add(Reason.BROKEN, path)
        if is_image(path):
            self.file(path, 0, -1)
        elif "." not in path.rsplit("/", 1)[-1]:
            self.lost.append(Lost(path, f"cannot be read ({reason})"))

    def closed_folder(self, path: str, reason: str) -> None:
        """A folder that the system does not let us look into."""
        self.left_out.add(Reason.CLOSED, f"{path}/")
        self.lost.append(Lost(path, f"cannot be opened ({reason})"))

    def done(self) -> Scan:
        """The scan, sorted."""
        order = sorted(range(len(self._paths)), key=self._paths.__getitem__)

        def ordered(values: list[int]) -> list[int]:
            return [values[index] for index in order]

        entries = Entries(
            [self._paths[index] for index in order],
            ordered(self._sizes),
            ordered(self._offsets),
            ordered(self._shards),
        )
        return Scan(entries, self.left_out, self.folders, self.lost)


def is_image(path: str) -> bool:
    """Whether a name has an image's ending."""
    return path.lower().endswith(EXTENSIONS)


def printable(path: str) -> str:
    """A path with the bytes that are not UTF-8 written as `\\xff`."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def named(names: Sequence[str]) -> str:
    """The first few names, in one line."""
    return ", ".join(names[:_EXAMPLES]) + (", …" if len(names) > _EXAMPLES else "")
