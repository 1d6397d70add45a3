"""The published numbers that ship with the project (`published.yaml`, which names a source for each)."""

from functools import cache
from importlib.resources import files
from typing import Any

from cnnjepa.ablations.data_facts import SetSize
from cnnjepa.schemas.yaml_text import read_yaml


@cache
def published() -> dict[str, Any]:
    """Return the whole file."""
    text = (files("cnnjepa.ablations") / "published.yaml").read_text(encoding="utf-8")
    return dict(read_yaml(text, "published.yaml"))


def published_time_shares() -> dict[str, float]:
    """Return method → fraction of the method's pretraining time, data loading included, that CNN-JEPA takes according
    to the paper's text."""
    return {name: 1 - less for name, less in published()["claims"]["less_pretraining_time_than"].items()}


def published_set(preset: str) -> SetSize | None:
    """Return the size of the data set that a preset is published on; None for presets without one."""
    size = published()["sets"].get(preset)
    return None if size is None else SetSize(**size)
