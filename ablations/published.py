"""The published numbers, as they ship with the project (`published.yaml`, source named for each)."""

from functools import cache
from importlib.resources import files
from typing import Any

import yaml


@cache
def published() -> dict[str, Any]:
    """The whole file."""
    return dict(yaml.safe_load((files("cnnjepa.ablations") / "published.yaml").read_text(encoding="utf-8")))


def epoch_images(preset: str) -> int | None:
    """Training images of the set that a preset is published on; None for presets without one."""
    count = published()["images"].get(preset)
    return None if count is None else int(count)
