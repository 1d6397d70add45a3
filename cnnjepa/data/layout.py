"""Location of the two splits in a scan, `[root/]<split>/<class>/<image>`, and the error messages for other layouts."""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from cnnjepa.data.scan import EXTENSIONS, Reason, Scan, printable
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.fields import nearest


class Layout(NamedTuple):
    """The images of both splits."""

    root: str
    """Folder above the splits, ending in `/`; empty if the splits are at the top."""
    train: list[int]
    """Indices of the training images in the scan."""
    val: list[int]
    """Indices of the validation images in the scan."""


def both_splits(paths: list[str], train: str, val: str) -> Layout | None:
    """Return the images `<split>/<class>/<image>` of both splits, in the uppermost folder that contains both; None if
    there is no such folder. Raises ConfigError if there are several at the same level."""
    splits = _by_root(paths)
    whole = [root for root, found in splits.items() if train in found and val in found]
    if not whole:
        return None
    root = uppermost(whole)
    return Layout(root, splits[root][train], splits[root][val])


def with_folders_below(paths: list[str], layout: Layout, train: str, val: str) -> Layout:
    """Return the layout with the images of folders below a class's folder, at any depth, if that folder holds images
    itself."""
    found = {train: list(layout.train), val: list(layout.val)}
    known = {paths[index].rsplit("/", 1)[0] for index in (*layout.train, *layout.val)}
    taken = {*layout.train, *layout.val}
    depth = layout.root.count("/")
    for index, path in enumerate(paths):
        parts = path.split("/")
        below = path.startswith(layout.root) and len(parts) > depth + 3 and "/".join(parts[: depth + 2]) in known
        if below and index not in taken:
            found[parts[depth]].append(index)
    return Layout(layout.root, sorted(found[train]), sorted(found[val]))


def uppermost(roots: Iterable[str]) -> str:
    """Return the folder that lies above the others. Raises ConfigError if several lie at its level."""
    every = sorted(roots, key=lambda root: root.count("/"))
    level = sorted(other for other in every if other.count("/") == every[0].count("/"))
    if len(level) > 1:
        raise ConfigError(
            f"several data sets lie side by side ({', '.join(level[:5])}); give one of them with --data PATH"
        )
    return every[0]


def leave_out_others(scan: Scan, paths: list[str], layout: Layout, train: str, val: str) -> None:
    """Add the images that are not in the layout, and its classes without images, to the scan's `left_out`."""
    taken = {*layout.train, *layout.val}
    for index, path in enumerate(paths):
        if index not in taken:
            scan.left_out.add(_why(path, layout.root, train, val), path)
    for folder in _empty_classes(scan, layout.root, train, val, [paths[index] for index in taken]):
        scan.left_out.add(Reason.CLASS, f"{folder}/")


def _by_root(paths: list[str]) -> dict[str, dict[str, list[int]]]:
    """Group images by the folder above their split, and by split."""
    splits: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, path in enumerate(paths):
        parts = path.rsplit("/", 3)
        if len(parts) >= 3:
            splits[f"{parts[0]}/" if len(parts) == 4 else ""][parts[-3]].append(index)
    return splits


def _why(path: str, root: str, train: str, val: str) -> Reason:
    below = path.removeprefix(root)
    split, _, rest = below.partition("/")
    if not path.startswith(root) or split not in (train, val) or not rest:
        return Reason.OUTSIDE
    return Reason.LOOSE if "/" not in rest else Reason.DEEP


def _empty_classes(scan: Scan, root: str, train: str, val: str, taken: list[str]) -> list[str]:
    filled = {path.rsplit("/", 1)[0] for path in taken}
    return sorted(
        folder
        for folder in scan.folders
        if folder.startswith((f"{root}{train}/", f"{root}{val}/"))
        and folder.count("/") == root.count("/") + 1
        and folder not in filled
    )


def refusal(scan: Scan, paths: list[str], train: str, val: str, where: str) -> str:
    """Return the message for images that are not laid out as `<split>/<class>/<image>`: the reason and the cure."""
    splits = _by_root(paths)
    left_out = "; ".join(scan.left_out.lines())
    left_out = f". Left out: {left_out}" if left_out else ""
    if not paths:
        return f"data.path {where} holds no images; their names must end in {', '.join(EXTENSIONS)}{left_out}"
    found = {name: _depths(paths, name) for name in (train, val)}
    for field, name in (("train", train), ("val", val)):
        if not found[name]:
            empty = any(f"/{folder}".endswith(f"/{name}") for folder in scan.folders)
            there = sorted(_split_names(paths, splits))
            what = "holds no images" if empty else f"is not in {where}; it holds {', '.join(there[:10])}"
            return f"data.{field}_split {name!r} {what}{nearest(name, there)}{left_out}"
    problems = _problems(found, train, val)
    return (
        f"data.path {where} must hold {train}/<class>/<image> and {val}/<class>/<image>, but "
        f"{'; '.join(problems)}{left_out}"
    )


def _depths(paths: list[str], split: str) -> dict[int, list[list[str]]]:
    """Find the images below a folder with the split's name. Returns the parts of their paths, grouped by the number of
    folders between split and image."""
    found: dict[int, list[list[str]]] = defaultdict(list)
    for path in paths:
        parts = path.split("/")
        if split in parts[:-1]:
            below = parts[parts.index(split) :]
            found[len(below) - 2].append([*parts[: parts.index(split)], *below])
    return found


def _split_names(paths: list[str], splits: dict[str, dict[str, list[int]]]) -> set[str]:
    if not splits:
        return {path.split("/")[0] for path in paths}
    depth = min(root.count("/") for root in splits)
    return {name for root, found in splits.items() if root.count("/") == depth for name in found}


def _problems(found: dict[str, dict[int, list[list[str]]]], train: str, val: str) -> list[str]:
    problems = []
    for name in (train, val):
        for depth, images in sorted(found[name].items()):
            example, count = printable("/".join(images[0])), len(images)
            such = f"{example} (one of {count:,} such images)" if count > 1 else example
            if depth == 0:
                problems.append(f"{such} is in no class's folder: put it into one below {name}")
            elif depth > 1:
                problems.append(f"{such} lies {depth} folders below {name}: move it up into its class's folder")
    classes = {depth: {parts[parts.index(train) + 1] for parts in images} for depth, images in found[train].items()}
    known = set().union(*(names for depth, names in classes.items() if depth))
    for parts in found[val].get(1, []):
        name = parts[parts.index(val) + 1]
        if known and name not in known:
            problems.append(f"{val}/{name} is no class of {train}: put its images into folders named after their class")
            break
    if not problems:
        above = sorted({"/".join(parts[: parts.index(name)]) or "." for name in found for parts in found[name][1]})
        problems.append(f"{train} and {val} lie in different folders ({', '.join(above[:5])}): put them into one")
    return problems
