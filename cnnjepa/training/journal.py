"""What is written down while training: metrics.jsonl and TensorBoard, both cut back on resume."""

import json
import math
import os
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnjepa.masks import Masks
from cnnjepa.training.files import write_atomically


class Journal:
    """Appends lines and scalars; everything up to a step is on disk after `sync`."""

    def __init__(self, run_dir: Path, step: int) -> None:
        """`step`: steps done; what an earlier session wrote of later ones is cut away."""
        from torch.utils.tensorboard import SummaryWriter

        self._path = run_dir / "metrics.jsonl"
        self._cut_back(step)
        self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115 - closed in close()
        board = run_dir / "tensorboard"
        self._board = SummaryWriter(str(board), purge_step=step + 1 if board.exists() else None)

    def _cut_back(self, step: int) -> None:
        if not self._path.exists():
            return
        kept = []
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except ValueError:  # a line torn by a crash, always the last
                break
        write_atomically(self._path, "".join(kept).encode())

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """A line of `kind` (`train` or `probe`) after `step` steps, and its numbers as scalars `kind/name`."""
        line = {"kind": kind, "step": step, **values}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        for name, value in values.items():
            if isinstance(value, int | float) and math.isfinite(value):
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def images(self, step: int, views: tuple[Tensor, ...], masks: Masks | None) -> None:
        """A panel of a few samples: image, context, target; or all views where nothing is masked."""
        name = "views" if masks is None else "image_context_target"
        self._board.add_image(f"images/{name}", panel(views, masks), step)

    def hparams(self, settings: dict[str, Any], outcome: dict[str, float]) -> None:
        """The run's settings beside its outcome, for TensorBoard's comparison of runs."""
        plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in settings.items()}
        self._board.add_hparams(plain, outcome, run_name=".")

    def sync(self) -> None:
        """Everything written so far reaches the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._board.flush()

    def close(self) -> None:
        """Ends both."""
        self._file.close()
        self._board.close()


def final_loss(run_dir: Path, step: int) -> float | None:
    """Mean loss of the last interval logged up to `step`; None before the first."""
    path = run_dir / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    losses = [line["loss"] for line in lines if line["kind"] == "train" and line["step"] <= step]
    return float(losses[-1]) if losses else None


def panel(views: tuple[Tensor, ...], masks: Masks | None, count: int = 8) -> Tensor:
    """uint8 [3, rows·S, count·S]: the views [B, 3, S, S] in rows (smaller ones in a grey margin), then their context
    and targets. Pixels are in [0, 255]."""
    rows = [view[:count].to(torch.uint8).cpu() for view in views]
    side = max(row.shape[-1] for row in rows)
    rows = [F.pad(row, (0, side - row.shape[-1]) * 2, value=128) for row in rows]
    pixels = rows[0]
    for mask in masks or ():
        p = pixels.shape[2] // mask.shape[1]
        shown = mask[:count].cpu().repeat_interleave(p, 1).repeat_interleave(p, 2)[:, None]
        rows.append(torch.where(shown, pixels, torch.full_like(pixels, 128)))
    return torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
