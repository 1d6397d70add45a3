"""Shared by all tests."""

import itertools
import os
import signal
import sys

# Before torch is imported. Tests compare bits, so the number of threads is fixed; one, because runs are small.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from image_sets import broken_folder, image_folder, square_folder  # noqa: F401 (fixtures of many files)
from reports import blank_pictures, reported  # noqa: F401
from undisturbed_runs import undisturbed  # noqa: F401

from cnnjepa import signals
from cnnjepa.schemas import extension

PHOTOGRAPHS = Path(__file__).parents[2] / "shared" / "data" / "tinyimagenet100.tar.gz"

# A machine that does other work too is slow now and then; that is no failure.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


# Seconds that a test with a marker takes, roughly; others take 0.05.
_SECONDS = {"ray": 20.0, "slow": 15.0, "kills": 6.0, "processes": 3.0, "medium": 2.0, "browser": 1.0}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file first, so that processes which run whole files end together (`--no-loadscope-reorder`)."""
    seconds: dict[Path, float] = {}
    for item in items:
        longest = max((_SECONDS.get(mark.name, 0.05) for mark in item.iter_markers()), default=0.05)
        seconds[item.path] = seconds.get(item.path, 0.0) + longest
    items.sort(key=lambda item: -seconds[item.path])


@pytest.fixture(autouse=True)
def _same_global_state() -> Iterator[None]:
    """Every test starts with the same seed and threads; what a command set for its whole process goes with the test."""
    torch.manual_seed(0)
    threads, excepthook = torch.get_num_threads(), threading.excepthook
    term = signal.getsignal(signal.SIGTERM)
    yield
    signals.release()
    if term is not None and signal.getsignal(signal.SIGTERM) is not term:  # Ray leaves a handler of its own
        signal.signal(signal.SIGTERM, term)
    threading.excepthook = excepthook
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="module")
def _extensions_of_this_file_only() -> Iterator[None]:
    """The schemas list the extensions that configs have named; a file of tests must not see another's."""
    before = dict(extension._met)
    yield
    extension._met.clear()
    extension._met.update(before)


_number = itertools.count()


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh module name in a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return f"own_{next(_number)}"


@pytest.fixture(scope="session")
def photographs() -> Path:
    """100 classes of real 64x64 photographs; tests that need them skip where they are absent."""
    if not PHOTOGRAPHS.is_file():
        pytest.skip("the photographs of shared/data are not on this machine")
    return PHOTOGRAPHS
