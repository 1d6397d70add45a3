"""The pool of trials, `runs/by_hash/<pretrain_hash>/`, shared by all studies, and the status of each trial.

Trials of archived studies, which have no run folder, are read from `studies/<name>/trials.jsonl`.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cnnjepa.ablations.archived_trials import ArchivedTrials, logged_lines
from cnnjepa.errors import InUseError, RunError
from cnnjepa.schemas import PretrainConfig, TrialResult
from cnnjepa.storage.locks import holder, locked
from cnnjepa.training.run_folder import RunFolder

State = Literal["waiting", "begun", "running", "finished", "collapsed", "failed", "unreadable"]
"""`begun`: there is a checkpoint, or at least a config, and no process trains; `unreadable`: result.json is damaged."""


@dataclass(frozen=True)
class TrialStatus:
    """Status of a trial."""

    state: State
    result: TrialResult | None = None
    progress: float = 0.0
    """Fraction of the training steps done, 0 to 1."""
    loss: float | None = None
    """Mean loss of the last logged interval."""
    knn: float | None = None
    """Last k-NN accuracy on held-out training images, in percent."""
    images_per_s: float | None = None
    seconds_left: float | None = None
    """Remaining seconds of training at the speed of the last interval; the probes come on top."""
    problem: str | None = None
    """Reason why it failed or cannot be read."""

    @property
    def settled(self) -> bool:
        """True if there is a result that counts."""
        return self.state in ("finished", "collapsed")


class Pool:
    """The trials below one root."""

    def __init__(self, root: Path) -> None:
        self.path = root / "runs" / "by_hash"
        self._archived = ArchivedTrials(root)

    def folder(self, pretrain_hash: str) -> RunFolder:
        """Return the run folder of the trial with this hash."""
        return RunFolder(self.path / pretrain_hash)

    @contextlib.contextmanager
    def claimed(self, pretrain_hash: str) -> Iterator[bool]:
        """Claim the trial for this driver while the context is entered; yield whether the claim succeeded at once.

        The training process takes the trial's own lock, many seconds after it was started. Until then, only the claim
        makes other drivers take another trial.
        """
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(locked(self._claim(pretrain_hash), patience=0))
            except InUseError:
                yield False
                return
            yield True

    def is_claimed(self, pretrain_hash: str) -> bool:
        """Return whether a driver has claimed the trial."""
        return holder(self._claim(pretrain_hash)) is not None

    def _claim(self, pretrain_hash: str) -> Path:
        return self.path.parent / "claims" / pretrain_hash

    def status(self, pretrain_hash: str, probe_hash: str, config: PretrainConfig, train_images: int) -> TrialStatus:
        """Return the trial's status, read from its folder alone; safe while other processes train. A trained run that
        has only a result of other probe settings counts as begun: it is probed again without training. A failure under
        other probe settings is not a failure of this trial."""
        folder = self.folder(pretrain_hash)
        held = folder.holder() is not None
        try:
            result = folder.read_result(probe_hash) or self._archived_result(pretrain_hash, probe_hash)
        except RunError as error:
            return TrialStatus("running") if held else TrialStatus("unreadable", problem=str(error))
        if result and not held and result.status == "failed":
            return TrialStatus("failed", result, problem=result.error)
        if result and result.has_figures:
            return TrialStatus(result.status, result, 1.0, result.final_loss)
        if not held and not folder.begun:
            return TrialStatus("waiting")
        train, knn = _last_lines(self.logged(pretrain_hash, probe_hash) or [], probe_hash)
        return _under_way(train, knn, config, train_images, "running" if held else "begun")

    def _archived_result(self, pretrain_hash: str, probe_hash: str) -> TrialResult | None:
        """Return the archived result, unless it is a failure and the trial was begun again."""
        archived = self._archived.result(pretrain_hash, probe_hash)
        return None if archived and not archived.has_figures and self.folder(pretrain_hash).begun else archived

    def logged(self, pretrain_hash: str, probe_hash: str) -> list[Any] | None:
        """Return the lines of the trial's `metrics.jsonl`, see `logged_lines`; None when there are none."""
        path = self.folder(pretrain_hash).path / "metrics.jsonl"
        try:
            return logged_lines(path.read_text(encoding="utf-8", errors="replace"))
        except FileNotFoundError:
            return self._archived.logged(pretrain_hash, probe_hash)


def _under_way(
    train: dict[str, Any] | None, knn: float | None, config: PretrainConfig, train_images: int, state: State
) -> TrialStatus:
    """Return the status of a trial without a result, from the last lines of its metrics.jsonl."""
    if train is None:
        return TrialStatus(state, knn=knn)
    progress = float(train["epoch"]) / config.runtime.epochs
    rate = float(train["images_per_s"])
    left = (1 - progress) * config.runtime.epochs * train_images / rate if rate else None
    return TrialStatus(state, None, progress, float(train["loss"]), knn, rate, left)


def own_probe(line: dict[str, Any], probe_hash: str) -> bool:
    """Return whether a probe's line of metrics.jsonl belongs to these settings. Lines of earlier versions do not name
    them, and count."""
    return bool(line.get("probe_hash", probe_hash) == probe_hash)


def _last_lines(lines: list[Any], probe_hash: str) -> tuple[dict[str, Any] | None, float | None]:
    """Return (the last training line, the k-NN accuracy of the last probe of these settings). Unreadable lines are
    skipped."""
    train, knn = None, None
    for line in lines:
        kind = line.get("kind") if isinstance(line, dict) else None  # torn by a crash, or from another program
        if kind == "train":
            train = line
        elif kind == "probe" and own_probe(line, probe_hash):
            knn = float(line["knn_top1"]) if "knn_top1" in line else None
    return train, knn
