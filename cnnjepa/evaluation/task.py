"""The interface of tasks, built-in and user-defined."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnjepa.evaluation.subject import Subject
from cnnjepa.implementation import implementation_of
from cnnjepa.schemas.evaluation import IMPLEMENTATIONS, TaskSection
from cnnjepa.schemas.evaluation_result import EvaluationFigure


@dataclass
class Outcome:
    """Figures of a task."""

    figures: dict[str, EvaluationFigure]
    """The figures by name, in the order of tables; the first is the main one."""

    per_image: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """Values of single validation images by figure, float32 [M], in percent: two encoders are compared image by image.
    The mean is the figure. A figure that is a ratio of sums has [M, K] arrays of counts instead, under the names that
    `overlap.counted` gives."""

    chosen: dict[str, float] = field(default_factory=dict)
    """Settings that were chosen on held-out training images."""

    notes: list[str] = field(default_factory=list)
    """Facts that a reader of the figures should know."""

    details: dict[str, Any] = field(default_factory=dict)
    """Further content, as JSON."""


class Task(ABC):
    """A task. A user's task is named with `--tasks package.module:Class`; its `Config`, derived from `TaskSection`, has
    its settings."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    @abstractmethod
    def evaluate(self, subject: Subject, tick: Callable[[], None]) -> Outcome:
        """Evaluate the encoder. `tick` is to be called every few seconds, so that the caller can stop; it raises. The
        outcome is a function of the subject and the settings alone: a killed evaluation is run again from the start
        and gives the same figures. Torch's generators are seeded before the call."""


def task_of(settings: TaskSection) -> Task:
    """Return the task that a section describes."""
    made: Task = implementation_of(settings, IMPLEMENTATIONS)(settings)
    return made
