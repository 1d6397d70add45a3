"""The cost of every arm: computed parameters and FLOPs, measured time and memory."""

from collections.abc import Callable, Iterable

import numpy as np

from cnnjepa.ablations.report.reading import ArmTrials, ReportedTrial, StudyData
from cnnjepa.ablations.report.tables.table import Cell, Column, Table
from cnnjepa.schemas import Cost
from cnnjepa.schemas.numbers import duration, quantity

_MEASURED = ("mean", "sd")

# Key, header, unit and value of a run's cost. Computed values are equal for all seeds of an arm.
_COMPUTED: list[tuple[str, str, str, Callable[[Cost], float]]] = [
    ("encoder_params", "encoder parameters", "", lambda cost: cost.encoder_params),
    ("predictor_params", "predictor parameters", "", lambda cost: cost.predictor_params),
    ("flops_per_image", "FLOPs per image", "FLOP", lambda cost: cost.flops_per_image),
]
_TIMED: list[tuple[str, str, int, Callable[[Cost], float | None]]] = [
    ("gpu_hours", "GPU-hours", 2, lambda cost: cost.gpu_hours),
    ("train_hours", "training", 3, lambda cost: cost.train_seconds / 3600),
    ("images_per_s", "images/s", 0, lambda cost: cost.images_per_s),
    ("peak_memory_gib", "peak memory, GiB", 2, lambda cost: _gib(cost.peak_memory_bytes)),
]


def _gib(size: int | None) -> float | None:
    return None if size is None else size / 2**30


def cost_table(study: StudyData, dataset: str, name: str) -> Table | None:
    """Return a table with one row per arm, over its finished trials; None when none has finished."""
    arms = study.on(dataset)
    if not any(_costs(arm.trials) for arm in arms):
        return None
    columns = [Column("arm", "arm", numeric=False), Column("n", "n"), *cost_columns()]
    columns.append(Column("hardware", "measured on", numeric=False, latex=False))
    return Table(
        name,
        f"{study.name}: cost on {dataset}",
        tuple(columns),
        tuple(_row(arm) for arm in arms),
        (
            "Parameters and FLOPs are computed. FLOPs are 2 x multiply-adds of a training step per image, forward and "
            "backward, at the mean visible share. Hours, images/s and peak memory are measured: mean ± standard "
            "deviation over the finished trials. Runs on a CPU have no GPU-hours.",
            "Peak memory is device memory on a GPU, and the resident set on a CPU. Speeds are comparable only on equal "
            "hardware.",
        ),
    )


def cost_columns(latex: bool = True) -> list[Column]:
    """Return the columns of `cost_cells`."""
    computed = [Column(key, header, latex=latex) for key, header, _, _ in _COMPUTED]
    return computed + [Column(key, header, _MEASURED, latex=latex) for key, header, _, _ in _TIMED]


def cost_cells(trials: Iterable[ReportedTrial]) -> list[Cell]:
    """Return the cost of some trials of one arm; dashes if none has finished."""
    costs = _costs(trials)
    cells = []
    for _, _, unit, get in _COMPUTED:
        value = get(costs[0]) if costs else None
        cells.append(Cell(quantity(value, unit), {"": value}, value))
    for key, _, decimals, measure in _TIMED:
        known = [measure(cost) for cost in costs if key != "gpu_hours" or on_gpu(cost)]
        measured = [value for value in known if value is not None]
        cells.append(_measured(measured, decimals, _hours if key == "train_hours" else None))
    return cells


def _costs(trials: Iterable[ReportedTrial]) -> list[Cost]:
    return [trial.result.cost for trial in trials if trial.result and trial.result.cost]


def on_gpu(cost: Cost) -> bool:
    """Return whether a run used GPUs."""
    return cost.gpu_hours > 0


def _row(arm: ArmTrials) -> tuple[Cell, ...]:
    runs = tuple(trial.page for trial in arm.trials if trial.result)
    n = len(_costs(arm.trials))
    hardware = "; ".join(sorted({_hardware(trial.result.software) for trial in arm.trials if trial.result}))
    return (
        Cell(arm.label, {"": arm.label}, arm.label, "strong" if arm.baseline else "", runs=runs),
        Cell(str(n), {"": n}, n),
        *cost_cells(arm.trials),
        Cell(hardware or "–", {"": hardware}, hardware or None, "quiet"),
    )


def _hours(hours: float) -> str:
    return duration(3600 * hours)


def _measured(values: list[float], decimals: int, form: Callable[[float], str] | None = None) -> Cell:
    if not values:
        return Cell("–", {})
    mean = float(np.mean(values))
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    shown = form or (lambda value: f"{value:,.{decimals}f}")
    text = shown(mean) + (f" ± {shown(sd)}" if sd is not None else "")
    return Cell(text, {"mean": mean, "sd": sd}, mean)


def _hardware(software: dict[str, str]) -> str:
    """Return `cuda, 4 processes` or `cpu, 2 threads`, as the run recorded it."""
    device = software.get("device", "unknown device").split(":")[0]
    gpus = software.get("gpus", "[]").strip("[]")
    processes = software.get("world_size", "1")
    what = gpus.split(",")[0].strip("'\" ") if device == "cuda" and gpus else software.get("cpu", "")
    parts = [device, what, f"{processes} processes" if processes != "1" else ""]
    if device == "cpu" and "threads" in software:
        parts.append(f"{software['threads']} thread{'' if software['threads'] == '1' else 's'}")
    return ", ".join(filter(None, parts))
