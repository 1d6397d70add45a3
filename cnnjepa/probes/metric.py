"""Probe metrics: further figures of the probed encoder's features, built-in and user-defined."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cnnjepa.errors import RunError
from cnnjepa.implementation import implementation_of
from cnnjepa.randomness import layer_randomness, seed_layers
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.metric import IMPLEMENTATIONS, MetricSection

_NAME = re.compile(r"^[A-Za-z]\w*$")


class ProbedFeatures(NamedTuple):
    """The features of a frozen encoder, globally average-pooled, in the order of the images. Large ones are mapped from
    a file, so read them in blocks."""

    train: Tensor
    """float32 [N, D], features of the training images, on the CPU."""
    train_labels: Tensor
    """int64 [N], classes in the order of `class_names`, on the CPU."""
    val: Tensor
    """float32 [M, D], features of the validation images, on the CPU."""
    val_labels: Tensor
    """int64 [M], on the CPU."""
    class_names: Sequence[str]
    """Names of the classes."""
    device: torch.device
    """Device of the run, on which a metric may compute."""


class ProbeMetric(ABC):
    """Figures of an encoder's features. A user's metric is named in `probe.metrics` as `package.module:Class`. A nested
    `Config`, derived from MetricSection, holds its fields."""

    def __init__(self, config: MetricSection) -> None:
        self.config = config

    @abstractmethod
    def figures(self, features: ProbedFeatures) -> Mapping[str, float]:
        """Return figures by name. Names are letters, digits and underscores, and belong to one metric only; values are
        finite. The features must not be changed. Torch's generators are seeded before the call, and their state is
        restored after it, so that the figures are the same whenever a run is probed."""


def load_metrics(sections: Iterable[MetricSection]) -> dict[str, ProbeMetric]:
    """Return the metrics of `probe.metrics` by name. Raises ConfigError for a class that is not a ProbeMetric or cannot
    be created."""
    made: dict[str, ProbeMetric] = {}
    for section in sections:
        found = implementation_of(section, IMPLEMENTATIONS)
        if not issubclass(found, ProbeMetric):
            raise ConfigError(f"metric {section.name}: {found.__name__} must derive from cnnjepa.extend.ProbeMetric")
        try:
            made[section.name] = found(section)
        except Exception as error:  # the user's code may raise anything
            raise ConfigError(f"metric {section.name} cannot be created from its config: {error}") from error
    return made


def measure(
    metrics: Mapping[str, ProbeMetric], features: ProbedFeatures, tick: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Return the figures of all metrics. `tick` is called before each, so that the caller can stop. Raises RunError for
    a metric that fails, and for figures that violate the contract of `ProbeMetric.figures`."""
    found: dict[str, float] = {}
    for name, metric in metrics.items():
        tick()
        with layer_randomness(features.device):
            seed_layers(0, "metric")
            try:
                figures = metric.figures(features)
            except Exception as error:  # the user's code may raise anything; --debug shows where
                raise RunError(f"metric {name}: {type(error).__name__}: {error}") from error
        if wrong := _wrong(figures, found):
            raise RunError(f"metric {name}: {wrong}")
        found |= {label: float(value) for label, value in figures.items()}
    return found


def _wrong(figures: object, before: Mapping[str, float]) -> str | None:
    """Describe how a metric's figures violate the contract, or return None."""
    if not isinstance(figures, Mapping) or not figures:
        return f"figures must give at least one figure by name, not {figures!r}"
    for label, value in figures.items():
        if not isinstance(label, str) or not _NAME.match(label):
            return f"{label!r} is no name of a figure; use letters, digits and underscores"
        if label in before:
            return f"another metric has a figure {label!r}; figures need names of their own"
        try:
            finite = math.isfinite(float(value))
        except (TypeError, ValueError, RuntimeError):
            return f"{label} must be a number; it is {value!r}"
        if not finite:
            return f"{label} is {float(value)}; figures must be finite"
    return None
