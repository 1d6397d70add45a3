"""The part of the training set that probes hold out, and the remainder for a method that learns from labels."""

import dataclasses
from collections.abc import Iterable

from torch import Tensor

from cnnjepa.data.open import DataSet
from cnnjepa.data.resident import subset
from cnnjepa.data.split_off import part_of, split_off
from cnnjepa.schemas import ConfigError, PretrainConfig


def held_out_split(labels_N: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return (fitting, held-out) indices, ascending. `part_of` images of every class are held out. The split is a
    function of (labels, fraction, seed)."""
    return split_off(labels_N, fraction, seed, "held_out")


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
    fit, _ = held_out_split(data.train.labels, config.probe.held_out_fraction, config.probe.split_seed)
    return dataclasses.replace(data, train=subset(data.train, fit))


def trained_images(config: PretrainConfig, per_class: Iterable[int]) -> int:
    """Return the size of `training_set`, given the number of training images of every class."""
    fraction = config.probe.held_out_fraction if config.method.LEARNS_FROM_LABELS else 0.0
    return sum(members - (part_of(members, fraction) if fraction else 0) for members in per_class)
