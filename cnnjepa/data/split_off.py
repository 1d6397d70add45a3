"""Seeded parts of a set of images: stratified by class, or made of whole groups."""

import torch
from torch import Tensor

from cnnjepa.randomness import key, uniforms


def split_off(labels_N: Tensor, fraction: float, seed: int, purpose: str) -> tuple[Tensor, Tensor]:
    """Return (kept, split-off) indices, ascending. `part_of` images of every class are split off. The result is a
    function of the arguments."""
    draws_N = uniforms(key(seed, purpose), torch.arange(labels_N.numel()), 1)[:, 0]
    off = torch.zeros_like(labels_N, dtype=torch.bool)
    by_class = labels_N.argsort(stable=True)
    for members in by_class.split(torch.bincount(labels_N).tolist()):
        count = part_of(members.numel(), fraction)
        off[members[draws_N[members].argsort(stable=True)[:count]]] = True
    return (~off).nonzero()[:, 0], off.nonzero()[:, 0]


def part_of(members: int, fraction: float) -> int:
    """Return how many of a class's images are split off: `fraction` of them, rounded. Of a class with two images or
    more, at least one is split off and one is kept."""
    return min(max(round(members * fraction), 1), members - 1) if members > 1 else 0


def split_off_groups(
    labels_N: Tensor, groups_N: Tensor, fraction: float, seed: int, purpose: str = "val_groups"
) -> tuple[Tensor, Tensor]:
    """Return (kept, split-off) indices, ascending, so that no group (int64 [N]) is in both parts.

    Groups are visited in a seeded order. One is split off if that brings the numbers of split-off images per class
    nearer to `part_of`, unless it holds all images that are left of a class; at least one group is split off and one is
    kept. Raises ValueError if that is impossible.
    """
    groups_N = groups_N.unique(return_inverse=True)[1]
    count = int(groups_N.max()) + 1 if groups_N.numel() else 0
    if count < 2:
        raise ValueError(f"these are of {count} group(s), which cannot be divided into two parts")
    classes = int(labels_N.max()) + 1
    table_GC = torch.zeros(count, classes, dtype=torch.int64)
    table_GC.index_put_((groups_N, labels_N), torch.ones_like(groups_N), accumulate=True)
    whole_C = table_GC.sum(0)
    due_C = torch.tensor([part_of(int(members), fraction) for members in whole_C])
    have_C = torch.zeros_like(due_C)

    def may_go(group: int) -> bool:
        return bool(((whole_C - have_C - table_GC[group] > 0) | (table_GC[group] == 0)).all())

    order = uniforms(key(seed, purpose), torch.arange(count), 1)[:, 0].argsort(stable=True).tolist()
    off: list[int] = []
    for group in order:
        gain = (due_C - have_C).abs().sum() - (due_C - have_C - table_GC[group]).abs().sum()
        if gain > 0 and may_go(group):
            off.append(group)
            have_C += table_GC[group]
    if not off:  # every group is larger than twice the part that is due: the smallest is the nearest
        allowed = [group for group in order if may_go(group)]
        if not allowed:
            raise ValueError("every group holds all images of some class")
        off = [min(allowed, key=lambda group: int(table_GC[group].sum()))]
    chosen = torch.isin(groups_N, torch.tensor(off))
    return (~chosen).nonzero()[:, 0], chosen.nonzero()[:, 0]
