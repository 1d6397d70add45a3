"""Display of a running study: a live table on a terminal, one line per change elsewhere."""

import contextlib
import threading
import time
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from cnnjepa.ablations.driver import distinct
from cnnjepa.ablations.pool import Pool, TrialStatus
from cnnjepa.ablations.study_folder import StudyFolder, TrialKey, TrialRecord, status_of
from cnnjepa.ablations.study_tensorboard import StudyTensorBoard
from cnnjepa.ablations.trial_runner import Outcome
from cnnjepa.cli.sheet import Sheet
from cnnjepa.cli.study_tables import counts_line, status_table
from cnnjepa.cli.terminal import is_live, say
from cnnjepa.errors import InUseError
from cnnjepa.schemas.numbers import duration
from cnnjepa.storage.locks import locked
from cnnjepa.telling import unfailing

_LOOK_EVERY_SECONDS = 1.0


class StudyWatch:
    """Watcher that checks the pool once per second, as `cnnjepa status` does, and keeps the study's TensorBoard logs up
    to date."""

    def __init__(self, console: Console, folder: StudyFolder, pool: Pool, records: list[TrialRecord]) -> None:
        self._console, self._pool, self._records = console, pool, records
        self._folder, self._held = folder, contextlib.ExitStack()
        self._board: StudyTensorBoard | None = None
        self._settled: dict[TrialKey, TrialStatus] = {}
        self._states: dict[TrialKey, str] = {}
        self._start = time.monotonic()
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)

    def __enter__(self) -> "StudyWatch":
        with contextlib.suppress(InUseError):  # another driver of this study writes its curves
            self._held.enter_context(locked(self._folder.path, patience=0))
            self._board = unfailing(
                lambda: StudyTensorBoard(self._folder, self._pool, self._records), "the study's TensorBoard"
            )
        for key, status in self._look().items():
            self._states[key] = status.state
        if is_live(self._console):
            self._live.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if is_live(self._console):
            self._live.stop()
        self._show(self._look())
        if self._board:
            self._board.close()
        self._held.close()

    def trial_ended(self, record: TrialRecord, outcome: Outcome) -> None:
        """Print an outcome that the trial's folder does not show."""
        if outcome.status in ("died", "busy"):
            text = f"{record.label}: {outcome.status}, {outcome.detail}"
            say(self._console, text)

    def _look_on(self) -> None:
        while not self._over.wait(_LOOK_EVERY_SECONDS):
            self._show(self._look())

    def _look(self) -> dict[TrialKey, TrialStatus]:
        statuses = dict(self._settled)
        for record in distinct(self._records):
            if record.key not in statuses:
                status = status_of(self._pool, record)
                statuses[record.key] = status
                if status.settled:
                    self._settled[record.key] = status
        return statuses

    def _show(self, statuses: dict[TrialKey, TrialStatus]) -> None:
        if self._board:
            self._board.update(statuses)
        if self._live.is_started:
            spent = duration(time.monotonic() - self._start)
            line = Text(f"{counts_line(self._records, statuses)}; {spent}. Ctrl-C stops with checkpoints.", style="dim")
            self._live.update(Group(self._table(statuses), line), refresh=True)
            return
        for record in distinct(self._records):
            status = statuses[record.key]
            if status.state != self._states.get(record.key):
                self._states[record.key] = status.state
                say(self._console, _line(record, status))

    def _table(self, statuses: dict[TrialKey, TrialStatus]) -> Sheet:
        """Return a table of as many trials as fit on the screen."""
        room, height = len(self._records), self._console.size.height - 4
        table = status_table(self._shown(statuses, room), statuses)
        while room > 1 and (lines := len(self._console.render_lines(table, pad=False))) > height:
            room = max(1, min(room - 1, room * height // lines))
            table = status_table(self._shown(statuses, room), statuses)
        return table

    def _shown(self, statuses: dict[TrialKey, TrialStatus], room: int) -> list[TrialRecord]:
        """Return all trials, or as many as there is room for: running and upcoming trials first."""
        if len(self._records) <= room:
            return self._records
        waits = ("running", "begun", "failed", "waiting", "unreadable", "collapsed", "finished")
        by_interest = sorted(self._records, key=lambda r: waits.index(statuses[r.key].state))
        chosen = {id(record) for record in by_interest[:room]}
        return [record for record in self._records if id(record) in chosen]


def _line(record: TrialRecord, status: TrialStatus) -> str:
    text = f"{status.state:<9} {record.label}"
    if status.result and (figures := status.result.first_set.probes.held_out):
        text += f"  linear {figures.linear_top1:.1f}  k-NN {figures.knn_top1:.1f}"
    return text + (f"  {status.problem}" if status.problem else "")
