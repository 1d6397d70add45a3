"""Assignment of a scan's images to training and validation, and of classes to images.

`arrange` recognises, in this order: `<split>/<class>/<image>`; classes of several folders (Places365) or with their
images in a folder below (Tiny ImageNet); a flat validation folder with a file of labels; `<class>/<image>` without
splits; and images without labels. Without validation images, a part of the training images is held out.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from cnnjepa.data.class_folders import annotated, class_folders, common_folder
from cnnjepa.data.entries import Entry
from cnnjepa.data.layout import both_splits, leave_out_others, refusal, uppermost, with_folders_below
from cnnjepa.data.scan import Lost, Reason, Scan, printable
from cnnjepa.data.split_off import split_off, split_off_groups
from cnnjepa.schemas import ConfigError, FolderData, HuggingFaceData
from cnnjepa.schemas.data import DEFAULT_VAL_SPLIT

FOLDERS_AS_CLASSES = "<class>/"
"""Origin of classes that folders without splits seem to be."""

# Names of folders that are splits, not classes.
_SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}
# Mean number of images of a folder below which folders are not taken for classes without being told so.
_LEAST_PER_CLASS = 2


class Arrangement(NamedTuple):
    """The use of every image, by its index in the scan."""

    root: str
    """Folder above the splits or classes, ending in `/`; empty if they are at the top."""
    train: list[int]
    val: list[int]
    classes: dict[int, str] | None
    """Class of every image; None without labels."""
    origin: str
    """The origin of splits and classes, in words."""
    standard: bool = False
    """True if the layout is `<split>/<class>/<image>`."""
    split_folders: bool = False
    """True if the first folder below `root` is that of the split."""
    lost: Sequence[Lost] = ()
    """Files and folders that belong to the set but cannot be read."""


def arrange(scan: Scan, read: Callable[[Entry], bytes], config: FolderData, where: str) -> Arrangement:
    """Arrange the images as `data.labels` (auto, none or folders) says. `read` returns the bytes of a file, and `where`
    is the path of the data set in messages.

    Images that are not used are added to the scan's `left_out`. Raises ConfigError for images that cannot be arranged
    as requested, with the reason and the cure.
    """
    paths = [entry.path for entry in scan.entries]
    train, val = config.train_split, config.val_split
    if not paths:
        raise ConfigError(refusal(scan, paths, train, val, where))
    by_class = config.labels != "none" and config.groups not in (1, -1)  # the folder of a group is not that of a class
    layout = both_splits(paths, train, val) if by_class else None
    if layout:
        deep = sum(path.startswith(f"{layout.root}{train}/") for path in paths) > 2 * len(layout.train)
        flat, layout = layout, with_folders_below(paths, layout, train, val)
        of_class = layout.root.count("/") + 1  # place of the class in a path
        classes = {index: paths[index].split("/")[of_class] for index in (*layout.train, *layout.val)}
        if len({classes[index] for index in layout.train} | _unread(scan, f"{layout.root}{train}/")) > 1 and not deep:
            leave_out_others(scan, paths, layout, train, val)
            inside = tuple(f"{layout.root}{split}/" for split in (train, val))
            lost = [one for one in scan.lost if f"{one.path}/".startswith(inside)]
            origin = f"{train}/<class>/ and {val}/<class>/"
            standard = layout == flat
            found = Arrangement(layout.root, layout.train, layout.val, classes, origin, standard, True, lost)
            return checked(found, paths, config, where)
    rooted = _with_train_folder(scan, paths, config, where)
    if rooted is None:
        return checked(_whole_tree(scan, paths, config, where), paths, config, where)
    return checked(_split_folders(scan, paths, rooted, read, config, where), paths, config, where)


def _with_train_folder(scan: Scan, paths: list[str], config: FolderData, where: str) -> str | None:
    """Return the uppermost folder that contains the training folder; None if nothing is called so. Raises ConfigError
    if a split is missing that the config or the tree names."""
    training, validation = _roots(paths, config.train_split), _roots(paths, config.val_split)
    if not training:
        top = {path.removeprefix(common_folder(paths)).split("/")[0] for path in paths if "/" in path}
        named = config.train_split != FolderData.model_fields["train_split"].default
        if named or (config.labels != "none" and top & _SPLITS):
            raise ConfigError(refusal(scan, paths, config.train_split, config.val_split, where))
        return None
    both = training & validation
    if config.labels == "none":  # any tree: split folders count only where there is no doubt about them
        certain = both or (training if training == {common_folder(paths)} else set())
        return next(iter(certain)) if len(certain) == 1 else None
    if both:
        return uppermost(both)
    empty = any(f"/{folder}".endswith(f"/{config.val_split}") for folder in scan.folders)
    if validation or empty or config.val_split != DEFAULT_VAL_SPLIT:
        raise ConfigError(refusal(scan, paths, config.train_split, config.val_split, where))
    root = uppermost(training)
    return None if _is_class(paths, root, config.train_split) else root


def _is_class(paths: list[str], root: str, name: str) -> bool:
    """Return whether the folder `name` is rather a class of that name (a vehicle, say): it only holds images, and so do
    other folders next to it, none of which is called as a split is."""
    others = {path.removeprefix(root).split("/")[0] for path in paths if path.startswith(root) and "/" in path}
    inside = [path for path in paths if path.startswith(f"{root}{name}/")]
    flat = all(path.count("/") == root.count("/") + 1 for path in inside)
    return flat and len(others) > 1 and not (others - {name}) & _SPLITS


def _roots(paths: list[str], split: str) -> set[str]:
    """Return the folders that contain a folder of this name with images in it, each ending in `/` unless empty."""
    found = set()
    for path in paths:
        before, name, _ = f"/{path}".partition(f"/{split}/")
        if name:
            found.add(f"{before[1:]}/" if before else "")
    return found


def _split_folders(
    scan: Scan, paths: list[str], root: str, read: Callable[[Entry], bytes], config: FolderData, where: str
) -> Arrangement:
    """Arrange a tree with a training folder below `root`, and perhaps a validation folder."""
    train, val = f"{root}{config.train_split}/", f"{root}{config.val_split}/"
    rows = [index for index, path in enumerate(paths) if path.startswith(train)]
    held = [index for index, path in enumerate(paths) if path.startswith(val)]
    taken = {*rows, *held}
    for index, path in enumerate(paths):
        if index not in taken:
            scan.left_out.add(Reason.OUTSIDE, path)
    lost = [one for one in scan.lost if f"{one.path}/".startswith((train, val))]
    known = None
    if config.labels != "none":
        known = class_folders([paths[index].removeprefix(train) for index in rows], config.groups)
    grouped = known is not None and not len(known) and isinstance(config.groups, int)  # all folders are of groups
    if known is None or (config.labels == "auto" and (grouped or len({*known} | _unread(scan, train)) < 2)):
        origin = f"{config.train_split}/" + (f" and {config.val_split}/" if held else "")
        return Arrangement(root, rows, held, None, origin, split_folders=True, lost=lost)
    if len(known) < 2 and config.labels == "folders":
        raise ConfigError(
            f"data.labels=folders: {where}/{train} holds images of {len(known)} class(es); give each class a folder "
            "of its own, or set data.labels=none"
        )
    classes: dict[int, str] = {}
    for index in rows:
        name = known.of(paths[index].removeprefix(train))
        if name is None:
            scan.left_out.add(Reason.LOOSE, paths[index])
        else:
            classes[index] = name
    labels, origin = _validation_labels(scan, paths, held, val, set(known), read, known.of)
    origin = f"{config.train_split}/<class>/" + (f" and {config.val_split}/{origin}" if labels else "")
    for index in held:
        if index not in labels:
            scan.left_out.add(Reason.UNLABELLED, paths[index])
    train_rows = [index for index in rows if index in classes]
    val_rows = [index for index in held if index in labels]
    return Arrangement(root, train_rows, val_rows, {**classes, **labels}, origin, split_folders=True, lost=lost)


def _unread(scan: Scan, split: str) -> set[str]:
    """Return the folders in the folder of a split, whether or not images in them can be read: classes are not taken for
    no classes because all but one are closed or hold other files."""
    found = [*scan.folders, *(one.path for one in scan.lost)]
    return {path.removeprefix(split) for path in found if path.startswith(split) and "/" not in path[len(split) :]}


def _validation_labels(
    scan: Scan,
    paths: list[str],
    held: list[int],
    val: str,
    known: set[str],
    read: Callable[[Entry], bytes],
    class_of: Callable[[str], str | None],
) -> tuple[dict[int, str], str]:
    """Return the classes of validation images, by index, and their origin. A flat folder has those of its file of
    labels, or none."""
    folders = {paths[index].removeprefix(val).rpartition("/")[0] for index in held}
    if len(folders) > 1 or {class_of(paths[index].removeprefix(val)) for index in held} & known:
        named = {index: class_of(paths[index].removeprefix(val)) for index in held}
        whole = {index: name or paths[index].removeprefix(val).rpartition("/")[0] for index, name in named.items()}
        return {index: name for index, name in whole.items() if name}, FOLDERS_AS_CLASSES
    by_name, file = annotated(scan.annotations, val, read)
    found = {index: by_name.get(paths[index].rsplit("/", 1)[-1].rsplit(".", 1)[0]) for index in held}
    return {index: name for index, name in found.items() if name}, f"{file}" if file else ""


def _whole_tree(scan: Scan, paths: list[str], config: FolderData, where: str) -> Arrangement:
    """Arrange a tree without split folders."""
    root = common_folder(paths)
    below = [path.removeprefix(root) for path in paths]
    every = list(range(len(paths)))
    if config.labels == "none":
        return Arrangement(root, every, [], None, "", lost=scan.lost)
    known = class_folders(below, config.groups)
    loose = [index for index in every if known.of(below[index]) is None]
    if config.labels == "folders" and len(known) < 2:
        raise ConfigError(
            f"data.labels=folders: {where} must hold {config.train_split}/<class>/<image> or <class>/<image> with two "
            f"classes or more; it has {len(known)}. Use data.labels=none for images without labels"
        )
    as_classes = len(known) >= 2 and not loose and len(paths) >= _LEAST_PER_CLASS * len(known)
    if config.labels == "auto" and not as_classes:
        return Arrangement(root, every, [], None, "", lost=scan.lost)
    for index in loose:
        scan.left_out.add(Reason.LOOSE, paths[index])
    classes = {index: name for index in every if (name := known.of(below[index]))}
    return Arrangement(root, list(classes), [], classes, FOLDERS_AS_CLASSES, lost=scan.lost)


def checked(found: Arrangement, paths: list[str], config: FolderData, where: str) -> Arrangement:
    """Return the arrangement. Raises ConfigError for validation images of classes that no training image has."""
    if found.classes is None:
        return found
    known = {found.classes[index] for index in found.train}
    unknown = {found.classes[index]: paths[index] for index in reversed(found.val)}
    unknown = {name: example for name, example in sorted(unknown.items()) if name not in known}
    if unknown:
        example = printable(next(iter(unknown.values())))
        place, all_have = f"{where}: ", "every class must have a training image"
        if found.split_folders:
            place, all_have = f"{where}/{found.root}", "the folders of both must have the same names"
        raise ConfigError(
            f"{place}{config.val_split} has classes that {config.train_split} lacks: "
            f"{printable(', '.join(list(unknown)[:5]))} ({example}); {all_have}"
        )
    return found


def hold_out(
    found: Arrangement, groups: dict[int, str] | None, config: FolderData | HuggingFaceData, where: str
) -> tuple[Arrangement, str]:
    """Return the arrangement with validation images, and a sentence about their origin. They are those that the set
    has, or else the share `data.val_fraction` of the training images: stratified by class, and of whole groups if
    `groups` (of every image) are given. Raises ConfigError if that is impossible, or if a group is in both splits of
    the set."""
    if found.val:
        _refuse_shared_groups(found, groups, config, where)
        return found, ""
    number = {name: place for place, name in enumerate(sorted(set((found.classes or {}).values())))}
    labels = torch.tensor([number[found.classes[index]] if found.classes else 0 for index in found.train])
    if groups is None:
        # Two images at least, so that their features can differ.
        least = 0.0 if found.classes or labels.numel() < 4 else 2 / labels.numel()
        kept, off = split_off(labels, max(config.val_fraction, least), config.val_seed, "val_split")
        manner = "stratified by class" if found.classes else "drawn at random"
    else:
        names = {name: place for place, name in enumerate(sorted({groups[index] for index in found.train}))}
        of = torch.tensor([names[groups[index]] for index in found.train])
        try:
            kept, off = split_off_groups(labels, of, config.val_fraction, config.val_seed)
        except ValueError:
            raise ConfigError(
                f"data.groups={config.groups}: the {len(found.train):,} images of {where} are of {len(names):,} "
                f"group(s) ({', '.join(map(printable, list(names)[:3]))}), none of which can be held out without "
                "leaving training without images or without a class; name another column or level, or give the set a "
                "validation folder"
            ) from None
        manner = f"whole groups, {len(set(of[off].tolist())):,} of {len(names):,}"
    if not off.numel():
        raise ConfigError(
            f"{where}: data.val_fraction={config.val_fraction:g} of {len(found.train):,} image(s) is none; give more "
            "images, or a validation folder"
        )
    rows = found.train
    split = found._replace(train=[rows[at] for at in kept.tolist()], val=[rows[at] for at in off.tolist()])
    return split, f"validation images held out from training: data.val_fraction={config.val_fraction:g}, {manner}"


def _refuse_shared_groups(
    found: Arrangement, groups: dict[int, str] | None, config: FolderData | HuggingFaceData, where: str
) -> None:
    if groups is None:
        return
    shared = sorted({groups[index] for index in found.train} & {groups[index] for index in found.val})
    if shared:
        raise ConfigError(
            f"data.groups={config.groups}: {len(shared):,} group(s) of {where} are in training and in validation "
            f"({', '.join(map(printable, shared[:3]))}); move each to one side, or leave data.groups out"
        )


def groups_by_level(found: Arrangement, paths: list[str], level: int, where: str) -> dict[int, str]:
    """Return the group of every image: the name of the folder at `level` of its path below the split's folder (or the
    set's root), counted from 1; -1 is the folder that holds the image. Raises ConfigError for a path without it."""
    groups = {}
    for index in (*found.train, *found.val):
        folders = paths[index].removeprefix(found.root).split("/")[:-1][found.split_folders :]
        place = level - 1 if level > 0 else level
        if not -len(folders) <= place < len(folders):
            raise ConfigError(
                f"data.groups={level}: {where}/{printable(paths[index])} lies in {len(folders)} folder(s) below its "
                "split; give a level that every image has, or a column of the table of data.labels"
            )
        groups[index] = folders[place]
    return groups
