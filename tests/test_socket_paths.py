"""Folders for local sockets: Linux limits their paths to 107 bytes."""

import os
import tempfile
from pathlib import Path

import pytest

from cnnjepa.ablations.ray_cluster import _ENVIRONMENT
from cnnjepa.ablations.ray_folder import ray_folder
from cnnjepa.matplotlib_cache import ensure_matplotlib_cache
from cnnjepa.schemas import ConfigError
from cnnjepa.socket_paths import short_folder, shorten_temporary_paths


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of a short path; tmp_path's is too long for Ray."""
    with tempfile.TemporaryDirectory(prefix="s", dir="/tmp") as folder:
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        yield Path(folder)


def of_length(parent: Path, length: int) -> Path:
    """A folder below `parent` whose path has `length` characters."""
    folder = parent / ("x" * (length - len(str(parent)) - 1))
    folder.mkdir()
    assert len(str(folder)) == length
    return folder


def test_the_first_folder_that_is_short_enough_and_writable_is_taken(short: Path) -> None:
    fits, long = of_length(short, 57), of_length(short, 58)
    assert short_folder([long, short / "absent", fits], room=50) == fits
    assert short_folder([long], room=50) is None


@pytest.mark.parametrize("length", [40, 80, 150])
def test_temporary_paths_are_shortened_only_where_sockets_would_not_fit(
    length: int, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = of_length(short, length)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    shorten_temporary_paths()
    assert tempfile.gettempdir() == (str(folder) if length <= 74 else "/tmp")


def test_ray_keeps_to_a_folder_that_is_short_and_ones_own(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    assert ray_folder() == short / "ray"
    monkeypatch.setattr(tempfile, "tempdir", str(of_length(short, 42)))
    assert ray_folder().parent == Path("/tmp")
    monkeypatch.setenv("RAY_TMPDIR", str(short))
    assert ray_folder() == short / "ray"


def test_a_ray_folder_of_another_user_is_passed_over(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    (short / "ray").write_text("stands for a folder that cannot be written, also for root")
    assert ray_folder() == short / f"ray-{os.getuid()}"


def test_a_ray_folder_that_cannot_be_made_is_refused_by_name(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(short / "absent"))
    with pytest.raises(ConfigError, match=rf"none can be made in RAY_TMPDIR {short}/absent: it must be writable"):
        ray_folder()
    monkeypatch.setenv("RAY_TMPDIR", str(of_length(short, 60)))
    with pytest.raises(ConfigError, match="at most 35 characters long"):
        ray_folder()


def test_uv_run_does_not_make_ray_send_the_working_directory() -> None:
    assert _ENVIRONMENT["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] == "0"


@pytest.mark.parametrize(("home", "writable"), [("home", True), ("home", False), ("absent/home", False)])
def test_matplotlib_gets_a_cache_where_the_home_cannot_be_written(
    home: str, writable: bool, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (short / "home").mkdir()
    monkeypatch.setenv("HOME", str(short / home))
    for name in ("MPLCONFIGDIR", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, "")  # so that it is restored afterwards
        monkeypatch.delenv(name)
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    monkeypatch.setattr(os, "access", lambda path, mode: writable)
    ensure_matplotlib_cache()
    expected = None if writable else str(short / f"matplotlib-{os.getuid()}")
    assert os.environ.get("MPLCONFIGDIR") == expected and (writable or Path(str(expected)).is_dir())
