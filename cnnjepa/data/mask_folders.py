"""Folders of masks next to their images, which are no images of a set."""

from cnnjepa.data.scan import Reason, Scan

IMAGES, MASKS = "images", "masks"
"""Folders of a set that keeps its masks next to its images."""


def leave_out_masks(scan: Scan) -> None:
    """Leave out the files of every folder `masks` next to a folder `images`, if each of them has the name of an image
    there, whatever the ending. Otherwise folders of these names are folders like others."""
    if scan.classes is not None or not any(f"/{folder}".endswith(f"/{MASKS}") for folder in scan.folders):
        return
    paths = [entry.path for entry in scan.entries]
    stems = {path.rsplit(".", 1)[0] for path in paths}
    masks: dict[str, list[int]] = {}
    for index, path in enumerate(paths):
        above, found, _ = f"/{path}".partition(f"/{MASKS}/")
        if found:
            masks.setdefault(above.lstrip("/"), []).append(index)
    taken: set[int] = set()
    for above, members in masks.items():
        root = f"{above}/" if above else ""
        partners = (f"{root}{IMAGES}/{paths[index].removeprefix(f'{root}{MASKS}/')}" for index in members)
        if all(partner.rsplit(".", 1)[0] in stems for partner in partners):
            taken.update(members)
    for index in sorted(taken):
        scan.left_out.add(Reason.MASK, paths[index])
    scan.entries = scan.entries.take([index for index in range(len(paths)) if index not in taken])
