"""A run that nothing has disturbed, with which resumed runs are compared."""

from pathlib import Path

import pytest
from runs import (
    in_process,
    small_config,
    train_alone,
)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert in_process(train_alone, small_config(), run) == 0
    return run
