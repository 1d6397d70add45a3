"""How many CPUs a process may use, from control groups written here as Linux shows them."""

import os
from pathlib import Path

import pytest

from cnnjepa import cpus


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def groups(tmp_path: Path, cgroup: str, **files: str) -> int:
    """usable_cpus() where /proc/self/cgroup says `cgroup` and the mount holds `files` (path: text)."""
    (tmp_path / "cgroup").write_text(cgroup)
    for path, text in files.items():
        file = tmp_path / "fs" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return cpus.usable_cpus(tmp_path / "cgroup", tmp_path / "fs")


def test_without_control_groups_the_affinity_counts(tmp_path: Path) -> None:
    assert cpus.usable_cpus(tmp_path / "absent", tmp_path) == 8


@pytest.mark.parametrize(("limit", "usable"), [
    ("max 100000", 8), ("100000 100000", 1), ("250000 100000", 2), ("50000 100000", 1), ("1600000 100000", 8), ("?", 8),
])  # fmt: skip
def test_a_quota_of_version_2(limit: str, usable: int, tmp_path: Path) -> None:
    assert groups(tmp_path, "0::/job\n", **{"job/cpu.max": limit}) == usable


def test_the_narrowest_quota_of_a_group_and_its_parents_counts(tmp_path: Path) -> None:
    files = {
        "slice/cpu.max": "200000 100000",
        "slice/job/cpu.max": "400000 100000",
        "slice/job/step/cpu.max": "max 100000",
    }
    assert groups(tmp_path, "0::/slice/job/step\n", **files) == 2


def test_a_container_that_sees_the_hosts_path_has_its_quota_at_the_root(tmp_path: Path) -> None:
    assert groups(tmp_path, "0::/docker/4f5a\n", **{"cpu.max": "300000 100000"}) == 3


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
def test_a_quota_of_version_1(mount: str, tmp_path: Path) -> None:
    files = {f"{mount}/job/cpu.cfs_quota_us": "150000\n", f"{mount}/job/cpu.cfs_period_us": "50000\n"}
    assert groups(tmp_path, f"3:{mount}:/job\n2:memory:/other\n0::/\n", **files) == 3


def test_no_quota_of_version_1_is_minus_one(tmp_path: Path) -> None:
    files = {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}
    assert groups(tmp_path, "1:cpu:/\n", **files) == 8


def test_torch_uses_no_more_threads_than_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from cnnjepa.schemas import RuntimeConfig
    from cnnjepa.training import distributed

    before = torch.get_num_threads()
    monkeypatch.setattr(distributed, "usable_cpus", lambda: 1)
    try:
        torch.set_num_threads(2)
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        distributed.use_threads(RuntimeConfig())
        assert torch.get_num_threads() == 2  # as the user wants it
        monkeypatch.delenv("OMP_NUM_THREADS")
        distributed.use_threads(RuntimeConfig())
        assert torch.get_num_threads() == 1
        distributed.use_threads(RuntimeConfig(threads=2))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_loader_processes_and_trials_are_bounded_by_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    from cnnjepa.ablations import resources
    from cnnjepa.data import workers

    for module in (resources, workers):
        monkeypatch.setattr(module, "usable_cpus", lambda: 1)
    assert workers.usable_workers(6) == 1
    assert resources.this_machine().cpus == 1
