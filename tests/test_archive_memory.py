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

__all__ = ["root"]  # a fixture


def test_entries_are_arrays_and_give_back_what_was_put_in() -> None:
    paths = ["train/a/ü.png", "train/a/\udcff.png", "val/b/2.png"]
    entries = Entries(paths, [3, 2**40, 0], [7, 2**41, -1], [0, 1, 2])
    assert [entry.path for entry in entries] == paths and entries.take([2, 0])[1] == (paths[0], 3, 7, 0)
    assert entries[1] == (paths[1], 2**40, 2**41, 1) and len(entries) == 3
    held = [value for value in vars(entries).values() if not isinstance(value, bytes | np.ndarray)]
    assert held == []


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
