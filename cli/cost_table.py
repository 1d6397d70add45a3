"""`cnnjepa benchmark --cost`: measured steps as a table and a file."""

import json
from typing import Any

from pydantic import ValidationError

from cnnjepa.ablations.method_study import method_config, methods_of
from cnnjepa.ablations.published import published_time_shares
from cnnjepa.ablations.step_cost_file import REFERENCE, step_cost_path
from cnnjepa.cli.sheet import Sheet
from cnnjepa.cli.study_options import StudyOptions
from cnnjepa.cli.terminal import console, say
from cnnjepa.commands import quoted
from cnnjepa.cpus import usable_cpus
from cnnjepa.measuring.step_costs import StepCost, step_costs
from cnnjepa.schemas import ConfigError, PretrainConfig
from cnnjepa.schemas.extent import as_yaml
from cnnjepa.schemas.load import explain
from cnnjepa.schemas.numbers import quantity
from cnnjepa.schemas.overrides import merge, nested, parse_overrides
from cnnjepa.training.distributed import Processes, pick_device
from cnnjepa.training.environment import environment
from cnnjepa.training.stopping import StopRequest


def measure(
    options: StudyOptions,
    methods: list[Any] | None,
    batch: int,
    image_size: int | None,
    rounds: int,
    threads: int | None,
    default_preset: str,
) -> None:
    """Measure the steps, print them, and write `benchmarks/method_cost.json` below the root. Raises ConfigError."""
    preset = options.preset or default_preset
    chosen = methods if methods is not None else [m for m in methods_of(preset) if m != "random_init"]
    if "random_init" in chosen:
        raise ConfigError("--methods random_init: it makes no step, so there is none to measure")
    chosen = [REFERENCE, *(name for name in chosen if name != REFERENCE)]  # all others alternate with it
    sets = dict(parse_overrides(options.sets or []))
    fixed = {"runtime.batch_size": batch, "runtime.accumulation": 1, **sets}
    if image_size is not None:
        fixed["data.image_size"] = image_size
    configs = {str(name): _with(method_config(preset, name, options.data), fixed) for name in chosen}
    progress = console(stderr=True)
    cores = usable_cpus()
    with StopRequest() as stop:
        found = step_costs(configs, rounds, threads or cores, lambda text: say(progress, text), stop.tick)
    first = configs[REFERENCE]
    device = pick_device(first.runtime.device)
    where = f"{device.type}, {threads or cores} threads, {first.runtime.precision}"
    title = f"a training step at batch {batch}, {as_yaml(first.data.image_size)} px, preset {preset} ({where})"
    console().print(_table(found, title))
    path = step_cost_path(options.root)
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {key: value for key, value in environment(Processes(0, 1, device)).items() if key != "host"}
    facts["threads"] = threads or cores  # of the measuring processes, not of this one
    asked = {"preset": preset, "batch": batch, "image_size": first.data.image_size}
    record = {
        "title": title,
        **asked,
        "methods": {name: cost._asdict() for name, cost in found.items()},
        "environment": facts,
    }
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    say(console(), f"Look:  {quoted(path)}")


def _with(config: PretrainConfig, fixed: dict[str, Any]) -> PretrainConfig:
    tree = config.model_dump(mode="json")
    for path, value in fixed.items():
        tree = merge(tree, nested(path, value))
    try:
        return PretrainConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{config.method.name}: {explain(error, PretrainConfig, tree)}") from None


def _table(found: dict[str, StepCost], title: str) -> Sheet:
    headers = ("method", "s/step", "ratio", "images/s", "FLOP", "ratio", "GiB", "ratio", "takes", "paper")
    table = Sheet(headers, title=(title,), folding=())
    ours, paper = found[REFERENCE], published_time_shares()
    for name, cost in found.items():
        table.add(
            name,
            f"{cost.median:.3g}",
            (_ratio(cost.median / cost.median_reference), "dim"),
            _rate(cost.images / cost.median),
            quantity(cost.flops_per_image),
            (_ratio(cost.flops_per_image / ours.flops_per_image), "dim"),
            f"{cost.memory_bytes / 2**30:.2f}",
            (_ratio(cost.memory_bytes / ours.memory_bytes), "dim"),
            f"{cost.median_reference / cost.median * cost.images / ours.images:.2f}",
            f"{paper[name]:.2f}" if name in paper else "",
        )
    spread = max((max(c.seconds) - min(c.seconds)) / c.median for c in found.values())
    table.caption = (
        f"medians of {min(len(c.seconds) for c in found.values())} steps, alternating with {REFERENCE}'s (spread up to "
        f"{100 * spread:.0f} %), without loading and augmentation; FLOP: per image; ratio: of the figure on its left "
        f"to {REFERENCE}'s. takes: CNN-JEPA's time for as many images, as a fraction of the method's; paper: the same "
        "fraction of the paper's hours, which include loading"
    )
    return table


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _rate(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
