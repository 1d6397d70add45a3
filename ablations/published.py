"""The published numbers, as they ship with the project (`published.yaml`, source named for each)."""

from functools import cache
from importlib.resources import files
from typing import Any

from cnnjepa.ablations.data_facts import SetSize
from cnnjepa.schemas.yaml_text import read_yaml


@cache
def published() -> dict[str, Any]:
    """The whole file."""
    text = (files("cnnjepa.ablations") / "published.yaml").read_text(encoding="utf-8")
    return dict(read_yaml(text, "published.yaml"))


def published_time_shares() -> dict[str, float]:
    """Method → the share of its pretraining time, data loading included, that CNN-JEPA takes by the paper's text."""
    return {name: 1 - less for name, less in published()["claims"]["less_pretraining_time_than"].items()}


def published_set(preset: str) -> SetSize | None:
    """Size of the set that a preset is published on; None for presets without one."""
    size = published()["sets"].get(preset)
    return None if size is None else SetSize(**size)
