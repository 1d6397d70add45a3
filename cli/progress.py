"""Progress on a terminal; plain lines where there is none."""

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cnnjepa.cli.summary import big
from cnnjepa.training.watcher import RunPlan, Watcher


class TerminalWatcher(Watcher):
    """Epoch, loss, images/s and time left. In a pipe or a log file, one line an epoch instead of a bar."""

    def __init__(self, batch_size: int) -> None:
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TextColumn("epoch {task.fields[epoch]}"),
            TextColumn("loss {task.fields[loss]}"),
            TextColumn("{task.fields[speed]} images/s"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None
        self._plan: RunPlan | None = None
        self._printed_epoch = 0

    def __enter__(self) -> "TerminalWatcher":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives the terminal back."""
        if self._progress.live.is_started:
            self._progress.stop()

    def started(self, plan: RunPlan) -> None:
        self._plan = plan
        total = plan.epochs * plan.steps_per_epoch
        say = self._console.print
        say(f"[bold]{plan.run_dir}[/]  {plan.pretrain_hash[:12]}  on {plan.device}", highlight=False)
        say(
            f"encoder {big(plan.encoder_params)} parameters, predictor {big(plan.predictor_params)}; "
            f"{big(plan.flops_per_image)}FLOP an image at {100 * plan.visible_share:.0f} % visible; "
            f"{plan.train_images:,} images, global batch {plan.global_batch}, {plan.epochs} epochs, {total:,} steps",
            highlight=False,
        )
        for caution in plan.cautions:
            self.warned(caution)
        if plan.first_step:
            say(f"going on from step {plan.first_step:,}", highlight=False)
        if plan.first_step < total:
            self._task = self._progress.add_task(
                "training",
                total=total,
                completed=plan.first_step,
                epoch=self._epoch(plan.first_step),
                loss="–",
                speed="–",
            )
            self._progress.start()

    def _epoch(self, step: int) -> str:
        assert self._plan
        return f"{min(step // self._plan.steps_per_epoch + 1, self._plan.epochs)}/{self._plan.epochs}"

    def stepped(self, step: int) -> None:
        if self._task is not None:
            self._progress.update(self._task, completed=step, epoch=self._epoch(step))

    def logged(self, kind: str, values: dict[str, Any]) -> None:
        if kind == "probe":
            self._console.print(
                f"epoch {values['epoch']:>4}  k-NN {values['knn_top1']:.1f} % (held-out training images)  "
                f"RankMe {values['rankme']:.1f}  spread {values['feature_std']:.3f}",
                highlight=False,
            )
            return
        if self._task is not None:
            self._progress.update(self._task, loss=f"{values['loss']:.4f}", speed=f"{values['images_per_s']:,.0f}")
        epoch = int(values["epoch"])
        if not self._console.is_terminal and epoch > self._printed_epoch:
            self._printed_epoch = epoch
            self._console.print(
                f"epoch {epoch:>4}  loss {values['loss']:.4f}  lr {values['lr']:.2g}  "
                f"{values['images_per_s']:,.0f} images/s  {values['seconds']:,.0f} s",
                highlight=False,
            )

    def phase(self, text: str) -> None:
        if self._console.is_terminal and self._task is not None and not self._progress.finished:
            return  # a glance between epochs; the bar stays
        self.close()
        self._console.print(f"{text} …", highlight=False)

    def warned(self, text: str) -> None:
        self._console.print(f"[yellow]note:[/] {text}", highlight=False)
