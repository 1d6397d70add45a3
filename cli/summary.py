"""The summary at the end of a run: accuracies with their floors, health, cost, paths."""

from pathlib import Path

from cnnjepa.cli.sheet import Cell, Sheet
from cnnjepa.cli.terminal import console, say, say_list
from cnnjepa.commands import command, quoted
from cnnjepa.probes.interval import wilson
from cnnjepa.schemas import ProbeFigures, Probes, TrialResult
from cnnjepa.schemas.numbers import counted, duration, exact, quantity
from cnnjepa.schemas.result import FLOOR_NAMES, SetFigures

_MEANING = {
    "held_out": "everything chosen on a tenth of the training set, validation touched once",
    "published": "the paper's: the linear probe's best epoch on the validation set (optimistic)",
}

_COLUMNS = {
    "linear_top1": "linear\ntop-1", "linear_top5": "linear\ntop-5", "knn_top1": "k-NN\ntop-1",
    "knn_top5": "k-NN\ntop-5",
}  # fmt: skip


def print_summary(result: TrialResult, run_dir: Path) -> None:
    """Print the result as one table per protocol and a few lines."""
    out = console()
    for found in result.by_set:
        for protocol, meaning in _MEANING.items():
            if getattr(found.probes, protocol):
                out.print(_table(result, found, protocol))
                say(out, (f"  {meaning}", "dim"))
                out.line()
        if found.metrics:
            out.print(_metrics(result, found))
            out.line()
    if result.probes is None:
        how = "; `cnnjepa probe RUN --probe-data PATH` probes the encoder on a set that has"
        say(out, (result.dataset, "bold"), f" has no labels{how}")
    if result.status == "collapsed" and result.diagnostics:
        say(out, ("collapsed:", "bold red"), f" {result.diagnostics.collapse_evidence}")
    if result.skipped_images:
        say(
            out,
            (f"{counted(len(result.skipped_images), 'unreadable image')} skipped", "yellow"),
            " (named in result.json)",
        )
    if result.repaired_images:
        say(
            out,
            (f"{counted(len(result.repaired_images), 'damaged image')} repaired while reading", "yellow"),
            " (named in result.json)",
        )
    for parts, between in _lines(result, run_dir):
        say_list(out, parts, between)


def _table(result: TrialResult, found: SetFigures, protocol: str) -> Sheet:
    rows: list[tuple[Cell, ProbeFigures]] = [
        (label, getattr(probes, protocol))
        for label, probes in _probes_of(result, found)
        if probes and getattr(probes, protocol)
    ]
    # With five classes or fewer, every top-5 accuracy is 100 %.
    top5 = any(value is not None and value < 100 for _, one in rows for value in (one.linear_top5, one.knn_top5))
    names = [name for name in _COLUMNS if top5 or not name.endswith("top5")]
    table = Sheet(
        ("features", *(_COLUMNS[name] for name in names)),
        title=(
            (found.name, "bold"),
            f", {found.val_images or 0:,} validation images, protocol ",
            (protocol, "bold"),
            ", %",
        ),
    )
    for label, figures in rows:
        table.add(label, *[_cell(getattr(figures, name), found.val_images) for name in names])
    return table


def _metrics(result: TrialResult, found: SetFigures) -> Sheet:
    """Return a table with one row per figure of `probe.metrics`."""
    floors = [(FLOOR_NAMES[name], figures) for name, figures in found.floors.metrics.items()]
    table = Sheet(
        ("probe metric", f"{result.probed_encoder}\nencoder", *(f"floor:\n{name}" for name, _ in floors)),
        title=((found.name, "bold"), ", figures of probe.metrics"),
    )
    for name in found.metrics:
        each = (figures.get(name) for figures in (found.metrics, *(figures for _, figures in floors)))
        table.add(name, *("–" if value is None else exact(round(value, 4)) for value in each))
    return table


def _probes_of(result: TrialResult, found: SetFigures) -> list[tuple[Cell, Probes | None]]:
    """Return (label, probes) of the encoder and of its floors."""
    return [
        ((f"{result.method}, {result.probed_encoder} encoder", "bold"), found.probes),
        (f"floor: {found.floors.start_name}", found.floors.start),
        ("floor: raw pixels", found.floors.pixels),
    ]


def _cell(value: float | None, images: int | None) -> str:
    if value is None:
        return "–"
    if not images:
        return f"{value:.1f}"
    low, high = wilson(value, images)
    return f"{value:.1f} ±{(high - low) / 2:.1f}"


def _lines(result: TrialResult, run_dir: Path) -> list[tuple[list[str], str]]:
    """Return (parts, what is between them) of every line. A narrow terminal breaks a line between parts."""
    interval = [
        "±: half of the 95 % interval (Wilson) over the validation images",
        "the variation between seeds is not included",
    ]
    lines = [(interval, "; ")] if result.by_set else []
    if result.diagnostics:
        health = result.diagnostics
        parts = [
            f"RankMe {health.rankme:.1f} of {health.feature_dim}",
            *([] if health.lidar is None else [f"LiDAR {health.lidar:.1f}"]),
            *([] if health.alpha_req is None else [f"α-ReQ {health.alpha_req:.2f}"]),
            f"feature spread {health.feature_std:.3f}",
            *([] if health.heldout_loss is None else [f"held-out loss {health.heldout_loss:.4f}"]),
            *([] if result.final_loss is None else [f"final loss {result.final_loss:.4f}"]),
        ]
        lines.append((parts, ", "))
    lines += [([line], "") for line in result.start]
    if result.cost:
        cost = result.cost
        peak = "not known" if cost.peak_memory_bytes is None else f"{cost.peak_memory_bytes / 2**30:.2f} GiB"
        speed = f"trained {duration(cost.train_seconds)} at {cost.images_per_s:,.0f} images/s"
        lines.append(([speed, f"{quantity(cost.flops_per_image, 'FLOP')} per image", f"peak memory {peak}"], "; "))
    board = command("tensorboard", "--logdir", run_dir / "tensorboard")
    lines.append(([f"Look:  {quoted(run_dir / 'result.json')}", quoted(run_dir / "metrics.jsonl"), board], "  "))
    return lines
