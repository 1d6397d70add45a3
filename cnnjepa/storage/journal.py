"""Records written while training: metrics.jsonl and TensorBoard. Both are truncated on resume.

metrics.jsonl is data: a run that cannot write it fails. TensorBoard is output: a run that cannot write it continues.
"""

import json
import math
import os
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnjepa.data.pixels import as_rgb
from cnnjepa.errors import RunError
from cnnjepa.masks import Masks
from cnnjepa.storage.atomic_files import write_atomically
from cnnjepa.telling import unfailing


class _Board:
    """TensorBoard's copy of the lines, and panels that only TensorBoard shows."""

    def __init__(self, run_dir: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = run_dir / "tensorboard"
        self._writer = SummaryWriter(str(folder), purge_step=step + 1 if folder.exists() else None)

    def line(self, kind: str, step: int, values: dict[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, int | float) and math.isfinite(value):
                self._writer.add_scalar(f"{kind}/{name}", value, step)

    def images(self, name: str, pixels: Tensor, step: int) -> None:
        self._writer.add_image(name, pixels, step)

    def hparams(self, settings: dict[str, Any], outcome: dict[str, float]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            self._writer.add_hparams(settings, outcome, run_name=".")

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _board(run_dir: Path, step: int) -> _Board:
    return unfailing(lambda: _Board(run_dir, step), "TensorBoard")


class Journal:
    """Appends lines and scalars. After `sync`, everything up to a step is on disk."""

    def __init__(self, run_dir: Path, step: int) -> None:
        """Open the journal. `step` is the number of steps done; records of later steps from an earlier session are
        removed."""
        self._path = run_dir / "metrics.jsonl"
        self._cut_back(step)
        self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115 - closed in close()
        self._board = _board(run_dir, step)

    def _cut_back(self, step: int) -> None:
        if not self._path.exists():
            return
        kept = []
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except ValueError:  # a crash cut this line off; it is always the last
                break
        write_atomically(self._path, "".join(kept).encode())

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Write a line of `kind` (`train` or `probe`) after `step` steps, and its numbers as scalars `kind/name`.
        Raises RunError if the line cannot be written."""
        left = (json.dumps({"kind": kind, "step": step, **values}) + "\n").encode()
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise RunError(f"cannot write {self._path} ({error.strerror or error})") from None
        self._board.line(kind, step, values)

    def images(self, step: int, views: tuple[Tensor, ...], masks: Masks | None) -> None:
        """Write a panel of a few samples: image, context and target, or all views if nothing is masked."""
        name = "views" if masks is None else "image_context_target"
        self._board.images(f"images/{name}", panel(views, masks), step)

    def sync(self) -> None:
        """Write everything so far to the disk. Raises RunError if that fails."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise RunError(f"cannot write {self._path} ({error.strerror or error})") from None
        self._board.flush()

    def close(self) -> None:
        """Close both records."""
        self._file.close()
        self._board.close()


class NullJournal:
    """The journal of a process that writes none: every call does nothing."""

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """See `Journal.write`."""

    def images(self, step: int, views: tuple[Tensor, ...], masks: Masks | None) -> None:
        """See `Journal.images`."""

    def sync(self) -> None:
        """See `Journal.sync`."""

    def close(self) -> None:
        """See `Journal.close`."""


AnyJournal = Journal | NullJournal


def write_hparams(run_dir: Path, step: int, settings: dict[str, Any], outcome: dict[str, float]) -> None:
    """Write the run's settings together with its outcome, for TensorBoard's comparison of runs."""
    plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in settings.items()}
    board = _board(run_dir, step)
    board.hparams(plain, outcome)
    board.close()


def final_loss(run_dir: Path, step: int) -> float | None:
    """Return the mean loss of the last interval logged up to `step`; None if there is none."""
    path = run_dir / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    losses = [line["loss"] for line in lines if line["kind"] == "train" and line["step"] <= step]
    return float(losses[-1]) if losses else None


def panel(views: tuple[Tensor, ...], masks: Masks | None, count: int = 8) -> Tensor:
    """Return a picture, uint8 [3, rows·H, count·W]: the views [B, K, H, W] in rows (smaller ones in a grey margin),
    then their context and targets. Input pixels are in [0, 255]."""
    rows = [as_rgb(view[:count].to(torch.uint8)).cpu() for view in views]
    height, width = (max(row.shape[axis] for row in rows) for axis in (2, 3))
    rows = [F.pad(row, (0, width - row.shape[3], 0, height - row.shape[2]), value=128) for row in rows]
    pixels = rows[0]
    for mask in masks or ():
        p = pixels.shape[2] // mask.shape[1]
        shown = mask[:count].cpu().repeat_interleave(p, 1).repeat_interleave(p, 2)[:, None]
        rows.append(torch.where(shown, pixels, torch.full_like(pixels, 128)))
    return torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
