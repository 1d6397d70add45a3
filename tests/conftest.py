"""Shared by all tests."""

import os

# Before torch is imported. Tests compare bits, so the number of threads is fixed; one, because runs are small.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest
import torch

PHOTOGRAPHS = Path(__file__).parents[2] / "shared" / "data" / "tinyimagenet100.tar.gz"


@pytest.fixture(autouse=True)
def _same_global_state() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def photographs() -> Path:
    """100 classes of real 64x64 photographs; tests that need them skip where they are absent."""
    if not PHOTOGRAPHS.is_file():
        pytest.skip("the photographs of shared/data are not on this machine")
    return PHOTOGRAPHS
