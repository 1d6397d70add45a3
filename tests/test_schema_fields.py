"""Every section of a config is frozen, documented and free of torch."""

import os
import subprocess
import sys

import pytest
from configs import resolved
from pydantic import BaseModel, ValidationError

from cnnjepa.schemas import (
    PretrainConfig,
    TrialResult,
    load_config,
    pretrain_hash,
    probe_hash,
)
from cnnjepa.schemas.base import Section
from cnnjepa.schemas.fields import arms, config_fields
from cnnjepa.schemas.reference import config_reference


def sections(model: type[BaseModel]) -> set[type[BaseModel]]:
    """`model` and every section below it, all arms of unions."""
    inner = {arm for info in model.model_fields.values() for arm in arms(info.annotation)}
    return {model}.union(*(sections(arm) for arm in inner))


@pytest.mark.parametrize(
    ("section", "field"),
    [("runtime", "seed"), ("method", "predictor"), ("data", "image_size"), ("probe", "knn_k")],
)
def test_a_config_is_frozen(section: str, field: str) -> None:
    config = load_config("demo")
    with pytest.raises(ValidationError, match="frozen"):
        setattr(getattr(config, section), field, 3)
    with pytest.raises(ValidationError, match="frozen"):
        config.runtime = config.runtime  # type: ignore[misc]


def test_every_section_is_frozen_and_refuses_unknown_keys() -> None:
    for model in sections(PretrainConfig) | sections(TrialResult):
        assert issubclass(model, Section), model
        assert model.model_config["frozen"] and model.model_config["extra"] == "forbid", model


@pytest.mark.parametrize("root", [PretrainConfig, TrialResult])
def test_every_section_and_field_is_documented(root: type[BaseModel]) -> None:
    for model in sections(root):
        assert model.__doc__ and len(model.__doc__.strip()) > 20, model
        for name, info in model.model_fields.items():
            assert info.description and len(info.description) > 8, f"{model.__name__}.{name}"
            assert info.description.strip().endswith((".", '"', "'")), f"{model.__name__}.{name}"


def test_the_reference_lists_every_field_with_its_text() -> None:
    text = config_reference()
    for field in config_fields():
        assert f"- **`{field.path.split('.')[-1]}`**" in text
        assert " ".join((field.info.description or "").split()) in text, field.path


_ELSEWHERE = """
import sys
from cnnjepa.schemas import load_config, pretrain_hash, probe_hash
from cnnjepa.schemas.reference import config_reference
config_reference()
config = load_config("smoke", overrides=["device=cpu", "resident=always", "image_size=128"])
print(pretrain_hash(config, "images", 2), probe_hash(config))
print([name for name in ("torch", "torchvision", "numpy") if name in sys.modules])
"""


@pytest.mark.processes
@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_another_process_gives_the_same_hashes_and_loads_no_torch(hash_seed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    hashes, heavy = done.stdout.splitlines()
    config = resolved()
    assert hashes == f"{pretrain_hash(config, 'images', 2)} {probe_hash(config)}"
    assert heavy == "[]"
