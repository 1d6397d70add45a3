"""Sets of drawn features for tests of evaluation tasks."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from cnnjepa.data import DataSet
from cnnjepa.evaluation.subject import Subject
from cnnjepa.probes.features import Features

CPU = torch.device("cpu")


class NamedImages:
    """A source that has labels and names, and no pixels."""

    def __init__(self, labels: Tensor, classes: int, split: str) -> None:
        self.labels, self._split = labels, split
        self.class_names = [f"class {c}" for c in range(classes)]

    def load(self, index: int) -> Tensor:
        raise AssertionError("the features are given; no image is read")

    def name(self, index: int) -> str:
        return f"{self._split}/{index}.png"

    def fingerprint(self) -> str:
        return f"{self._split} {self.labels.tolist()}"


def clusters(rows: int, classes: int, dim: int, seed: int, spread: float = 1.0) -> Features:
    """Return features of overlapping classes: Gaussian clouds around centres that do not depend on `seed`."""
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(rows) % classes
    noise = torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))
    return Features(centres[labels] + spread * noise, labels)


def subject_of(train: Features, val: Features, classes: int, scratch: Path) -> Subject:
    """Return a subject with these features."""
    data: Any = DataSet(
        NamedImages(train.labels, classes, "train"), NamedImages(val.labels, classes, "val"), "drawn", "drawn"
    )
    encoder: Any = SimpleNamespace(label="drawn features")
    subject = Subject(encoder, data, data, CPU, scratch)
    subject._pooled = {"train": train, "val": val}
    return subject
