"""Memory of an archive's entries, and the part of an archive that reaches a loader process."""

import io
import os
import pickle
import tarfile
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scanned_sets import IMAGES, config_of, png, root, tar_of

from cnnjepa.data.entries import Entries
from cnnjepa.data.open import open_sources
from cnnjepa.data.shared_arrays import Shared

__all__ = ["root"]  # a fixture


def test_entries_are_arrays_and_give_back_what_was_put_in() -> None:
    paths = ["train/a/ü.png", "train/a/\udcff.png", "val/b/2.png"]
    entries = Entries(paths, [3, 2**40, 0], [7, 2**41, -1], [0, 1, 2])
    assert [entry.path for entry in entries] == paths and entries.take([2, 0])[1] == (paths[0], 3, 7, 0)
    assert entries[1] == (paths[1], 2**40, 2**41, 1) and len(entries) == 3
    assert all(isinstance(value, np.ndarray | Shared) for value in vars(entries).values())


def _first_and_size(entries: Entries, answers: Any) -> None:
    answers.put((entries[0], entries[len(entries) - 1], private_bytes()))


def private_bytes() -> int:
    """Memory of this process that no other process shares."""
    facts = Path("/proc/self/smaps_rollup").read_text()
    return sum(int(line.split()[1]) * 1024 for line in facts.splitlines() if line.startswith("Private"))


@pytest.mark.processes
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs /proc")
def test_a_process_that_is_not_forked_shares_the_entries() -> None:
    count = 400_000
    entries = Entries([f"train/class{i % 7}/{i:060d}.png" for i in range(count)], range(count))
    nbytes = sum(array.nbytes for array in entries.arrays)
    context = get_context("forkserver")
    answers, used = context.Queue(), []
    for shared in (entries, Entries([entries.path(0), entries.path(count - 1)], [0, count - 1])):
        process = context.Process(target=_first_and_size, args=(shared, answers))
        process.start()
        first, last, private = answers.get(timeout=100)
        process.join()
        used.append(private)
        assert first == entries[0] and last == entries[count - 1]
    assert nbytes > 40e6 and used[0] - used[1] < 2e6  # those of the few entries tell what a process takes anyway


def _read_all(source: Any, answers: Any) -> None:
    answers.put([source.read(index) for index in range(source.labels.numel())])


@pytest.mark.processes
@pytest.mark.parametrize("name", ["set.tar", "set.tar.gz"])
@pytest.mark.parametrize("method", ["fork", "forkserver"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_an_archive_reaches_other_processes_without_its_content(root: Path, name: str, method: str) -> None:
    source = open_sources(config_of(tar_of(root, name)))["train"]
    context = get_context(method)
    answers = context.Queue()
    process = context.Process(target=_read_all, args=(source, answers))
    process.start()
    assert answers.get(timeout=100) == [source.read(index) for index in range(2 * IMAGES)]  # type: ignore[attr-defined]
    process.join()


def test_a_pickled_archive_is_small(tmp_path: Path) -> None:
    path = tmp_path / "big.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for split in ("train", "val"):
            for name in ("a", "b"):
                member = tarfile.TarInfo(f"{split}/{name}/0.png")
                content = png(0) + os.urandom(2_000_000)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    assert len(pickle.dumps(open_sources(config_of(path))["train"])) < 10_000
