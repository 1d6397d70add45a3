"""The part of the training set that probes hold out, and the remainder for a method that learns from labels."""

import dataclasses
from collections.abc import Iterable

import torch
from torch import Tensor

from cnnjepa.data.open import DataSet
from cnnjepa.data.resident import subset
from cnnjepa.randomness import key, uniforms
from cnnjepa.schemas import PretrainConfig


def held_out_split(labels_N: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return (fitting, held-out) indices, ascending. `held_out_count` images of every class are held out. The split is
    a function of (labels, fraction, seed)."""
    draws_N = uniforms(key(seed, "held_out"), torch.arange(labels_N.numel()), 1)[:, 0]
    held = torch.zeros_like(labels_N, dtype=torch.bool)
    for label in labels_N.unique():
        members = (labels_N == label).nonzero()[:, 0]
        count = held_out_count(members.numel(), fraction)
        held[members[draws_N[members].argsort(stable=True)[:count]]] = True
    return (~held).nonzero()[:, 0], held.nonzero()[:, 0]


def held_out_count(members: int, fraction: float) -> int:
    """Return how many of a class's images are held out: `fraction` of them, rounded, and at least one if the class has
    two or more."""
    return max(round(members * fraction), 1) if members > 1 else 0


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
    return sum(members - (held_out_count(members, fraction) if fraction else 0) for members in per_class)
