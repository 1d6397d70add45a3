"""The last thing a person sees of a run: accuracies beside their floors, health, cost, where to look."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from cnnjepa.probes.interval import wilson
from cnnjepa.schemas import ProbeFigures, Probes, TrialResult


def big(value: float) -> str:
    """1234567 → `1.2 M`."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.3g} "


_MEANING = {
    "held_out": "everything chosen on a tenth of the training set, validation touched once",
    "published": "the paper's: the linear probe's best epoch on the validation set (optimistic)",
}


def print_summary(result: TrialResult, run_dir: Path) -> None:
    """The result as a table a protocol and a few lines."""
    console = Console()
    for protocol, meaning in _MEANING.items():
        if getattr(result.probes, protocol):
            console.print(_table(result, protocol))
            console.print(f"  [dim]{meaning}[/]\n", highlight=False)
    if result.status == "collapsed" and result.diagnostics:
        console.print(f"[bold red]collapsed:[/] {result.diagnostics.collapse_evidence}", highlight=False)
    if result.skipped_images:
        console.print(f"[yellow]{len(result.skipped_images)} unreadable images were skipped[/] (named in result.json)")
    for line in _lines(result, run_dir):
        console.print(line, highlight=False, soft_wrap=True)


def _table(result: TrialResult, protocol: str) -> Table:
    title = f"[bold]{result.dataset}[/], {result.val_images:,} validation images, protocol [bold]{protocol}[/], %"
    table = Table(title=title, title_justify="left", title_style="")
    table.add_column("features", no_wrap=True)
    for name in ("linear\ntop-1", "linear\ntop-5", "k-NN\ntop-1", "k-NN\ntop-5"):
        table.add_column(name, justify="right", no_wrap=True)
    rows: list[tuple[str, Probes | None]] = [
        (f"[bold]{result.method}, {result.probed_encoder} encoder", result.probes),
        ("floor: untrained encoder", result.floors.untrained),
        ("floor: raw pixels", result.floors.pixels),
    ]
    for label, probes in rows:
        figures: ProbeFigures | None = getattr(probes, protocol) if probes else None
        if figures:
            cells = [figures.linear_top1, figures.linear_top5, figures.knn_top1, figures.knn_top5]
            table.add_row(label, *[_cell(value, result.val_images) for value in cells])
    return table


def _cell(value: float | None, images: int | None) -> str:
    if value is None:
        return "–"
    if not images:
        return f"{value:.1f}"
    low, high = wilson(value, images)
    return f"{value:.1f} [dim]±{(high - low) / 2:.1f}[/]"


def _lines(result: TrialResult, run_dir: Path) -> list[str]:
    lines = ["±: half of the 95 % interval (Wilson) of this one run over its validation images; seeds add to it."]
    if result.diagnostics:
        health = result.diagnostics
        loss = "" if result.final_loss is None else f", final loss {result.final_loss:.4f}"
        lines.append(
            f"RankMe {health.rankme:.1f} of {health.feature_dim}, feature spread {health.feature_std:.3f}{loss}"
        )
    if result.cost:
        cost = result.cost
        lines.append(
            f"trained {cost.train_seconds / 60:.1f} min at {cost.images_per_s:,.0f} images/s; "
            f"{big(cost.flops_per_image)}FLOP an image; peak memory {cost.peak_memory_bytes / 2**30:.2f} GiB"
        )
    lines.append(f"Look:  {run_dir}/result.json  {run_dir}/metrics.jsonl  tensorboard --logdir {run_dir}/tensorboard")
    return lines
