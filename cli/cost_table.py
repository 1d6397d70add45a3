"""`cnnjepa benchmark --cost`: measured steps as a table and a file."""

import json
import os
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from cnnjepa.ablations.method_study import method_config, methods_of
from cnnjepa.cli.study_options import StudyOptions
from cnnjepa.cli.summary import big
from cnnjepa.schemas import ConfigError, PretrainConfig
from cnnjepa.schemas.overrides import merge, nested, parse_override
from cnnjepa.step_costs import StepCost, step_costs
from cnnjepa.training.distributed import Processes, pick_device
from cnnjepa.training.environment import environment

_PAPER = {"simclr": 0.83, "byol": 0.65}
"""The paper's share of their pretraining time that CNN-JEPA takes (17 % and 35 % less), with data loading."""


def measure(
    options: StudyOptions,
    methods: list[Any] | None,
    batch: int,
    image_size: int | None,
    rounds: int,
    threads: int | None,
    default_preset: str,
) -> None:
    """Measures, prints, and writes `benchmarks/method_cost.json` below the root. Raises ConfigError."""
    preset = options.preset or default_preset
    chosen = methods if methods is not None else [m for m in methods_of(preset) if m != "random_init"]
    if "random_init" in chosen:
        raise ConfigError("--methods random_init: it makes no step, so there is none to measure")
    if "cnnjepa" not in chosen:
        chosen = ["cnnjepa", *chosen]
    sets = dict(parse_override(text) for text in options.sets or [])
    fixed = {"runtime.batch_size": batch, "runtime.accumulation": 1, **sets}
    if image_size is not None:
        fixed["data.image_size"] = image_size
    configs = {str(name): _with(method_config(preset, name), fixed) for name in chosen}
    console = Console(stderr=True)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = step_costs(configs, rounds, threads or cores, lambda text: console.print(text, highlight=False))
    first = configs["cnnjepa"]
    device = pick_device(first.runtime.device)
    where = f"{device.type}, {threads or cores} threads, {first.runtime.precision}"
    title = f"a training step at batch {batch}, {first.data.image_size} px, preset {preset} ({where})"
    Console().print(_table(found, title))
    path = options.root / "benchmarks" / "method_cost.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {key: value for key, value in environment(Processes(0, 1, device)).items() if key != "host"}
    asked = {"preset": preset, "batch": batch, "image_size": first.data.image_size}
    record = {
        "title": title,
        **asked,
        "methods": {name: cost._asdict() for name, cost in found.items()},
        "environment": facts,
    }
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    Console().print(f"Look:  {path}", soft_wrap=True)


def _with(config: PretrainConfig, fixed: dict[str, Any]) -> PretrainConfig:
    tree = config.model_dump(mode="json")
    for path, value in fixed.items():
        tree = merge(tree, nested(path, value))
    try:
        return PretrainConfig.model_validate(tree)
    except ValueError as error:
        raise ConfigError(f"{config.method.name}: {error}") from None


def _table(found: dict[str, StepCost], title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("method", no_wrap=True)
    for name in ("s a step", "images/s", "FLOP/image", "GiB", "takes", "paper"):
        table.add_column(name, justify="right", no_wrap=True)
    ours = found["cnnjepa"]
    for name, cost in found.items():
        rate, memory = cost.images / cost.median, cost.memory_bytes / 2**30
        table.add_row(
            name,
            f"{cost.median:.3g} [dim]{cost.median / ours.median:.2f}x[/]",
            f"{rate:.3g} [dim]{rate * ours.median / ours.images:.2f}x[/]",
            f"{big(cost.flops_per_image).strip()} [dim]{cost.flops_per_image / ours.flops_per_image:.2f}x[/]",
            f"{memory:.2f} [dim]{cost.memory_bytes / ours.memory_bytes:.2f}x[/]",
            f"{ours.median / cost.median:.2f}",
            f"{_PAPER[name]:.2f}" if name in _PAPER else "",
        )
    spread = max((max(c.seconds) - min(c.seconds)) / c.median for c in found.values())
    table.caption = (
        f"medians of {len(ours.seconds)} alternating steps (spread up to {100 * spread:.0f} %), ratios to cnnjepa; "
        "loading and augmenting left out. takes: the share of a method's time that CNN-JEPA takes; paper: the same of "
        "its hours, which include loading"
    )
    table.caption_justify = "left"
    return table
