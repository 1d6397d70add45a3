"""One process at a time in a folder, one driver at a trial: what locks promise, and where they cannot."""

from pathlib import Path

import pytest
from study_plans import study, written

from cnnjepa.ablations.local_executor import LocalExecutor
from cnnjepa.ablations.pool import Pool
from cnnjepa.ablations.study_folder import TrialRecord
from cnnjepa.ablations.trial_runner import Outcome
from cnnjepa.errors import RunError
from cnnjepa.schemas import ConfigError
from cnnjepa.storage.locks import holder, locked, refuse_unsafe_locks


def test_a_lock_that_only_this_machine_sees_is_refused(tmp_path: Path) -> None:
    line = "36 35 0:30 / {point} rw,relatime shared:1 - {kind} server:/x rw,{options}"
    local = line.format(point="/", kind="ext4", options="discard")
    for kind, options, refused in (
        ("nfs4", "vers=4.2,local_lock=none", False), ("nfs4", "local_lock=all", True), ("nfs", "nolock", True),
        ("lustre", "flock", False), ("lustre", "localflock", True), ("ext4", "discard", False),
    ):  # fmt: skip
        mounts = f"{local}\n{line.format(point=tmp_path, kind=kind, options=options)}"
        if refused:
            with pytest.raises(RunError, match=f"lies on {kind} mounted with"):
                refuse_unsafe_locks(tmp_path / "runs", mounts)
        else:
            refuse_unsafe_locks(tmp_path / "runs", mounts)


@pytest.mark.parametrize("kind", ["beegfs", "fuse.sshfs", "9p", "fuse.s3fs", "vboxsf"])
def test_file_systems_whose_locks_cannot_be_trusted_are_refused_by_name(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CNNJEPA_ONE_MACHINE", raising=False)
    mounts = f"36 35 0:30 / {tmp_path} rw,relatime - {kind} somewhere rw"
    with pytest.raises(
        RunError,
        match=rf"lies on {kind}, where other machines do not see a lock.*If no other machine.*CNNJEPA_ONE_MACHINE=1",
    ):
        refuse_unsafe_locks(tmp_path / "runs", mounts)
    monkeypatch.setenv("CNNJEPA_ONE_MACHINE", "1")
    refuse_unsafe_locks(tmp_path / "runs", mounts)


def test_beegfs_with_global_locks_is_accepted(tmp_path: Path) -> None:
    client = tmp_path / "client.conf"
    mounts = f"36 35 0:30 / {tmp_path} rw,relatime - beegfs beegfs_nodev rw,cfgFile={client}"
    client.write_text("tuneNumWorkers = 8\ntuneUseGlobalFileLocks   = true\n")
    refuse_unsafe_locks(tmp_path, mounts)
    client.write_text("tuneUseGlobalFileLocks = false\n")
    with pytest.raises(RunError, match="lies on beegfs"):
        refuse_unsafe_locks(tmp_path, mounts)


def test_drivers_of_an_array_take_different_trials_at_once(tmp_path: Path) -> None:
    """Act as a second driver while the first has started a trial's process, which has not locked its folder yet."""
    pool = Pool(tmp_path)
    taken: list[str] = []

    class Executor(LocalExecutor):
        def _attempts(self, record: TrialRecord, *_: object) -> Outcome:
            taken.append(record.pretrain_hash)
            return Outcome("stopped")

    folder, records = written(tmp_path, study(axes={"predictor.depth": [1, 2]}))
    one, other = (record.pretrain_hash for record in records)
    with pool.claimed(one) as first, pool.claimed(one) as again:
        assert first and not again and pool.is_claimed(one)
        Executor(folder, pool).run(records, tmp_path / "stop", lambda: False, lambda *_: None)
    assert taken == [other] and not pool.is_claimed(one) and not pool.is_claimed(other)
    assert not (tmp_path / "runs" / "claims").exists()  # nothing is left behind


def test_who_holds_a_folder_is_said(tmp_path: Path) -> None:
    with (
        locked(tmp_path),
        pytest.raises(ConfigError, match=rf"in use by another process \({holder(tmp_path)}\)"),
        locked(tmp_path, patience=0.1),
    ):
        pass
    assert holder(tmp_path) is None
