"""TensorBoard logs of a whole study: one run per trial, named after its arm, with the arm's settings as hparams."""

import json
import math
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

from cnnjepa.ablations.pool import Pool, TrialStatus, own_probe
from cnnjepa.ablations.study_folder import StudyFolder, TrialKey, TrialRecord
from cnnjepa.names import file_names, visible
from cnnjepa.schemas import TrialResult


class StudyTensorBoard:
    """Writer that follows the trials' metrics.jsonl into `studies/<name>/tensorboard/<arm>, seed <n>/`."""

    def __init__(self, folder: StudyFolder, pool: Pool, records: list[TrialRecord]) -> None:
        """Delete the logs of earlier sessions. Every point is written again, so that none is there twice."""
        root = folder.path / "tensorboard"
        if root.exists():
            shutil.rmtree(root)
        labels = [record.label for record in records]
        labels = [
            label if labels.count(label) == 1 else f"{label} {record.key[0][:12]}-{record.key[1][:8]}"
            for record, label in zip(records, labels, strict=True)
        ]
        names = file_names(labels, also=" =,–")  # each trial keeps its own name
        self._runs = {
            record.key: _Run(record, pool.folder(record.pretrain_hash).path / "metrics.jsonl", root / names[label])
            for record, label in zip(records, labels, strict=True)
        }

    def update(self, statuses: dict[TrialKey, TrialStatus]) -> None:
        """Write the points that were logged since the last call."""
        for key, run in self._runs.items():
            status = statuses[key]
            if status.state != "waiting":
                run.follow()
            if status.settled and status.result:
                run.conclude(status.result)

    def close(self) -> None:
        """Close the log file of every run."""
        for run in self._runs.values():
            run.close()


class _Run:
    """The curves of one trial."""

    def __init__(self, record: TrialRecord, metrics: Path, board: Path) -> None:
        self._record, self._metrics, self._board = record, metrics, board
        self._writer: Any = None
        self._read, self._inode = 0, -1
        self._concluded = False

    def follow(self) -> None:
        try:
            file = open(self._metrics, "rb")  # noqa: SIM115 - closed by the block below
        except FileNotFoundError:
            return
        with file:
            found = os.fstat(file.fileno())
            # A resumed trial writes a new file without the last lines. By its size alone, it could look like the old
            # file with more lines.
            if found.st_ino != self._inode or found.st_size < self._read:
                self._anew()
                self._inode = found.st_ino
            file.seek(self._read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        try:
            lines = [json.loads(text) for text in whole.splitlines()]
        except ValueError:  # a crash tore a line; resuming the trial removes it
            self._anew()
            return
        self._read += len(whole)
        for line in lines:
            if own_probe(line, self._record.probe_hash):
                self._add(line)

    def _anew(self) -> None:
        """Remove the written points and start again from the first line."""
        self.close()
        shutil.rmtree(self._board, ignore_errors=True)
        self._read = 0

    def _add(self, line: dict[str, Any]) -> None:
        for name, value in line.items():
            if name not in ("kind", "step") and isinstance(value, int | float) and math.isfinite(value):
                self._open().add_scalar(f"{line['kind']}/{name}", value, line["step"])

    def conclude(self, result: TrialResult) -> None:
        if self._concluded:
            return
        self._concluded = True
        chosen = {
            visible(axis): v if isinstance(v, bool | int | float) else visible(str(v))
            for axis, v in self._record.choices.items()
        }
        probes = result.first_set.probes
        figures = probes.held_out or probes.published
        outcome = {} if figures is None else figures.model_dump(exclude_none=True)
        outcome |= result.metrics
        if result.probes is None and result.diagnostics:
            shown = {"rankme", "lidar", "alpha_req", "feature_std", "heldout_loss"}
            outcome = result.diagnostics.model_dump(include=shown, exclude_none=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            self._open().add_hparams(
                {**chosen, "seed": self._record.seed}, {f"probe/{k}": v for k, v in outcome.items()}, run_name="."
            )
        self.close()

    def _open(self) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        if self._writer is None:
            self._writer = SummaryWriter(str(self._board))
        return self._writer

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
