"""Searches as the tests begin them: a space, its storage and its next trial."""

from pathlib import Path
from typing import Any

import optuna
import pytest

from cnnjepa.ablations.search.place import place_of
from cnnjepa.ablations.search.storage import storage_at
from cnnjepa.schemas.space import SearchSpace

GRIDS = {"8x8": {"stem": "small"}, "4x4": {"encoder.stem": "half", "strategy": "random"}}


def space(**fields: Any) -> SearchSpace:
    asked = {"name": "s", "preset": "smoke", "space": {"optimizer.lr": "log(1e-4, 1e-1)"}, **fields}
    return SearchSpace.model_validate(asked)


def opened(url: str | None, folder: Path) -> Any:
    folder.mkdir(exist_ok=True)
    return storage_at(place_of(url, folder), pytest.fail)


def ask(study: optuna.Study, asked: SearchSpace) -> optuna.trial.Trial:
    from cnnjepa.ablations.search.storage import distributions

    return study.ask(fixed_distributions=distributions(asked))
