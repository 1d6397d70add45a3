"""The part of the training set that probes hold out, and the remainder for a method that learns from labels."""

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor

from cnnjepa.data.open import DataSet
from cnnjepa.data.resident import subset
from cnnjepa.data.source import groups_of
from cnnjepa.data.split_off import part_of, split_off, split_off_groups
from cnnjepa.schemas import ConfigError, PretrainConfig


class GroupedLabels(NamedTuple):
    """Labels and groups of training images."""

    labels: Tensor
    """int64 [N]."""
    groups: Tensor
    """int64 [N]."""


def grouped_labels(data: DataSet) -> GroupedLabels | None:
    """Return labels and groups of the training images; None without groups."""
    groups = groups_of(data.train)
    return None if groups is None else GroupedLabels(data.train.labels, groups)


def held_out_split(
    labels_N: Tensor, fraction: float, seed: int, groups_N: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return (fitting, held-out) indices, ascending. `part_of` images of every class are held out, or about as many in
    whole groups if `groups_N` are given. The split is a function of the arguments. Raises ConfigError if the groups
    cannot be divided."""
    if groups_N is None:
        return split_off(labels_N, fraction, seed, "held_out")
    try:
        return split_off_groups(labels_N, groups_N, fraction, seed, "held_out_groups")
    except ValueError as error:
        raise ConfigError(
            f"data.groups: the probes hold out whole groups of training images, and {error}. Give more groups, or "
            "leave data.groups out; with probe.protocols=[published] and probe.every_epochs=0 only supervised training "
            "holds images out"
        ) from None


def refuse_undividable(config: PretrainConfig, data: DataSet) -> None:
    """Raise ConfigError if probes or the method hold out a part of a set that cannot be divided: a set whose groups
    cannot, or a set with one training image of every class."""
    probe = config.probe
    sets = list(data.judged_on.values()) if "held_out" in probe.protocols else []
    sets += [data.watched] if probe.every_epochs and data.watched.labelled else []
    probed = len(sets)
    sets += [data] if config.method.LEARNS_FROM_LABELS else []
    for number, images in enumerate(sets):
        _, held = held_out_split(
            images.train.labels, probe.held_out_fraction, probe.split_seed, groups_of(images.train)
        )
        if not held.numel() and number < probed:
            raise ConfigError(
                f"{images.name}: there is one training image of every class, and the probes hold out a part of each; "
                "give more images, or data.labels=none. With probe.protocols=[published] and probe.every_epochs=0 "
                "nothing is held out"
            )


def refuse_unlabelled(config: PretrainConfig, labelled: bool, name: str) -> None:
    """Raise ConfigError if the config's method learns from labels and the images have none. `name` is the name of the
    set in the message."""
    if config.method.LEARNS_FROM_LABELS and not labelled:
        raise ConfigError(
            f"method {config.method.name} learns from labels, and {name} has none; give them with data.labels (folders "
            "or a table), or choose another method"
        )


def training_set(config: PretrainConfig, data: DataSet) -> DataSet:
    """Return the images that the config's method learns from. A method that learns from labels gets the training images
    that the probes do not hold out; otherwise the held-out figures would measure how well labels were memorised. All
    other methods get all training images. A resident training set is copied."""
    if not config.method.LEARNS_FROM_LABELS:
        return data
    probe, train = config.probe, data.train
    fit, _ = held_out_split(train.labels, probe.held_out_fraction, probe.split_seed, groups_of(train))
    return dataclasses.replace(data, train=subset(data.train, fit))


def trained_images(config: PretrainConfig, per_class: Iterable[int], grouped: GroupedLabels | None = None) -> int:
    """Return the size of `training_set`, given the number of training images of every class, or the labels and groups
    of a set with `data.groups`."""
    if grouped and config.method.LEARNS_FROM_LABELS:
        probe = config.probe
        kept, _ = held_out_split(grouped.labels, probe.held_out_fraction, probe.split_seed, grouped.groups)
        return kept.numel()
    fraction = config.probe.held_out_fraction if config.method.LEARNS_FROM_LABELS else 0.0
    return sum(members - (part_of(members, fraction) if fraction else 0) for members in per_class)
