"""Progress of a run: bars on a terminal, plain lines elsewhere."""

from types import TracebackType
from typing import Any

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cnnjepa.cli.terminal import console, is_live, say, say_list
from cnnjepa.schemas.numbers import counted, quantity
from cnnjepa.training.watcher import RunPlan, Watcher


class TerminalWatcher(Watcher):
    """Watcher that shows epoch, loss, images/s and time left; one line per epoch if a bar cannot be redrawn."""

    def __init__(self, batch_size: int) -> None:
        self._console = console(stderr=True)
        self._live = is_live(self._console)
        self._progress = Progress(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(),
            TextColumn("epoch {task.fields[epoch]}", markup=False),
            TextColumn("loss {task.fields[loss]}", markup=False),
            TextColumn("{task.fields[speed]} images/s", markup=False),
            TimeElapsedColumn(),
            TextColumn("left", markup=False),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._live,
        )
        self._task: TaskID | None = None
        self._plan: RunPlan | None = None
        self._printed_epoch = 0
        self._said_of_probes = False

    def __enter__(self) -> "TerminalWatcher":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the progress bar and release the terminal."""
        if self._progress.live.is_started:
            self._progress.stop()

    def started(self, plan: RunPlan) -> None:
        self._plan = plan
        total = plan.epochs * plan.steps_per_epoch
        say(self._console, (str(plan.run_dir), "bold"), f"  {plan.pretrain_hash[:12]}  on {plan.device}")
        size = f"encoder {quantity(plan.encoder_params)} parameters, predictor {quantity(plan.predictor_params)}"
        cost = f"{quantity(plan.flops_per_image, 'FLOP')} per image at {100 * plan.visible_share:.0f} % visible"
        length = (
            f"{counted(plan.train_images, 'image')}, global batch {plan.global_batch}, "
            f"{counted(plan.epochs, 'epoch')}, {counted(total, 'step')}"
        )
        say_list(self._console, [size, cost, length], between="; ")
        if plan.found:
            say(self._console, f"images: {plan.found}")
        if plan.start:
            say(self._console, f"start: {plan.start}")
        for warning in plan.warnings:
            self.warned(warning)
        if plan.first_step:
            say(self._console, f"resuming from step {plan.first_step:,}")
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
            self._probed(values)
            return
        if self._task is not None:
            self._progress.update(self._task, loss=f"{values['loss']:.4f}", speed=f"{values['images_per_s']:,.0f}")
        epoch = int(values["epoch"])
        if not self._live and epoch > self._printed_epoch:
            self._printed_epoch = epoch
            say(
                self._console,
                f"epoch {epoch:>4}  loss {values['loss']:.4f}  lr {values['lr']:.2g}  "
                f"{values['images_per_s']:,.0f} images/s  {values['seconds']:,.0f} s",
            )

    def _probed(self, values: dict[str, Any]) -> None:
        """Print the figures of an online probe, and once what they are measured on."""
        if not self._said_of_probes:
            self._said_of_probes = True
            where = {"knn_top1": "k-NN on held-out training images", "heldout_loss": "loss on validation images"}
            if sets := [text for name, text in where.items() if name in values]:
                say_list(self._console, [f"online probes: {sets[0]}", *sets[1:]])
        forms = {
            "knn_top1": "k-NN {:.1f} %", "rankme": "RankMe {:.1f}", "lidar": "LiDAR {:.1f}",
            "alpha_req": "α-ReQ {:.2f}", "feature_std": "spread {:.3f}", "heldout_loss": "held-out loss {:.4f}",
        }  # fmt: skip
        figures = [form.format(values[name]) for name, form in forms.items() if name in values]
        say_list(self._console, [f"epoch {values['epoch']:>4}", *figures], between="  ", indent=len("epoch 1234  "))

    def phase(self, text: str) -> None:
        if self._live and self._task is not None and not self._progress.finished:
            return  # an online probe between epochs; the bar stays
        self.close()
        say(self._console, f"{text} …")

    def warned(self, text: str) -> None:
        say(self._console, ("note:", "yellow"), f" {text}")
