"""Configs that tests write, resolve and see refused."""

from pathlib import Path
from typing import Any

import pytest

from cnnjepa.schemas import (
    ConfigError,
    PretrainConfig,
    load_config,
)


def write(folder: Path, text: str) -> Path:
    """A YAML file holding `text`."""
    file = folder / "config.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def refused(**asked: Any) -> str:
    """The message with which `load_config` refuses."""
    with pytest.raises(ConfigError) as caught:
        load_config(**asked)
    return str(caught.value)


def resolved(*overrides: str) -> PretrainConfig:
    """The smoke preset with nothing left on auto."""
    return load_config("smoke", overrides=["device=cpu", "resident=always", "image_size=128", *overrides])
