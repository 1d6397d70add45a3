"""Progress over the images of a set: a bar on a terminal, a line for every tenth elsewhere."""

import time
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from cnnjepa.cli.terminal import console, is_live, say


class ImageProgress:
    """Shows the number of finished images, images per second and the time left."""

    def __init__(self, name: str, shown: bool = True) -> None:
        self._name, self._shown, self._console = name, shown, console(stderr=True)
        self._live = shown and is_live(self._console)
        self._bar = Progress(
            TextColumn("{task.description}", style="bold", markup=False), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}", markup=False), TextColumn("left", markup=False), TimeRemainingColumn(),
            console=self._console, disable=not self._live,
        )  # fmt: skip
        self._task: TaskID | None = None
        self._first: tuple[float, int] | None = None
        self._tenths = 0

    def __enter__(self) -> "ImageProgress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._bar.stop()

    def at(self, done: int, total: int) -> None:
        """Show that `done` of `total` images are finished."""
        if not self._shown or not total:
            return
        now = time.monotonic()
        if self._first is None:
            self._first = (now, done)
            if done:
                say(self._console, f"{self._name}: continuing after {done:,} of {total:,} images")
        start, before = self._first
        speed = f"{(done - before) / (now - start):,.0f} images/s" if done > before and now > start else ""
        if self._live:
            if self._task is None:
                self._task = self._bar.add_task(self._name, total=total, completed=done, speed=speed)
                self._bar.start()
            self._bar.update(self._task, completed=done, speed=speed)
        elif done > before and (tenths := 10 * done // total) > self._tenths:
            self._tenths = tenths
            say(self._console, f"{self._name}: {done:,} of {total:,} images, {speed}")
