"""The main table as a study, the presets behind it, and the cost of steps side by side."""

import json
from pathlib import Path

import pytest
import torch
from commands import cnnjepa

from cnnjepa.ablations.arms import arms_of
from cnnjepa.ablations.equal_time import equal_time_epochs
from cnnjepa.ablations.method_study import changes_of, method_config, method_study, methods_of
from cnnjepa.ablations.plan import baseline_arm, requested_trials
from cnnjepa.measuring.step_costs import StepCost, step_costs
from cnnjepa.schemas import ConfigError, LARSConfig, PretrainConfig, load_config

BASES = ("demo", "tiny64", "tiny64_cpu", "cifar", "in100", "in1k")
NAMES = ("simclr", "byol", "vicreg", "ijepa", "spark", "lejepa", "supervised", "random_init", "cnnjepa")


@pytest.mark.medium
@pytest.mark.parametrize("preset", BASES)
def test_every_base_has_every_method(preset: str) -> None:
    assert set(NAMES) <= set(methods_of(preset))
    for method in NAMES:
        config = method_config(preset, method)
        assert config.method.name == method
        if method not in ("cnnjepa", "random_init"):
            assert config == load_config(f"{preset}-{method}")
    same = {load_config(f"{preset}-{m}" if m not in ("cnnjepa", "random_init") else preset).data.source for m in NAMES}
    assert len(same) == 1


def lars(name: str) -> LARSConfig:
    optimizer = load_config(name).optimizer
    assert isinstance(optimizer, LARSConfig)
    return optimizer


def test_the_imagenet_presets_have_the_settings_of_the_methods_table() -> None:
    assert (lars("in100-simclr").lr, lars("in1k-simclr").weight_decay) == (1.7, 1e-6)
    assert lars("in1k-vicreg").lr == 0.5 and lars("in100-simclr").trust == 0.001
    byol = lars("in1k-byol")
    assert (byol.lr, byol.weight_decay, byol.weight_decay_end) == (0.45, 1e-6, 1e-5)
    assert load_config("in1k-byol").method.hidden_dim == 4096 and load_config("in100-byol").method.hidden_dim == 1024
    assert load_config("in100-byol").optimizer.name == "adamw" and load_config("in100-byol").optimizer.lr == 0.01
    for name in ("simclr", "byol", "vicreg"):
        assert load_config(f"in100-{name}").data.augmentation.crop_scale == (0.08, 1.0)
        assert load_config(f"in100-{name}").method.sync_batch_norm
        assert (load_config(f"in100-{name}").runtime.epochs, load_config(f"in1k-{name}").runtime.epochs) == (200, 100)
    ijepa = load_config("in100-ijepa")
    assert (ijepa.optimizer.lr, ijepa.optimizer.weight_decay, ijepa.optimizer.weight_decay_end) == (1e-3, 0.04, 0.4)
    assert ijepa.optimizer.lr * ijepa.schedule.warmup_start_factor == pytest.approx(2e-4)
    assert ijepa.optimizer.lr * ijepa.schedule.final_lr_factor == pytest.approx(1e-6)
    assert (ijepa.schedule.warmup_epochs, ijepa.runtime.epochs, 4 * ijepa.runtime.batch_size) == (40, 300, 2048)
    assert ijepa.data.augmentation.flip == 0 and ijepa.data.augmentation.crop_scale == (0.3, 1.0)
    assert ijepa.encoder.arch == "vit_small" and load_config("in1k-ijepa-base").encoder.arch == "vit_base"
    assert load_config("in100-ijepa", overrides=["patch_size=14"]).grid == 16
    assert load_config("in100-supervised").optimizer.lr == 1e-3


def test_the_study_has_an_arm_a_method_with_its_presets_settings() -> None:
    study = method_study("demo", ["byol", "cnnjepa", "random_init"], {})
    found = {arm.label: config for arm, _, config in requested_trials(study)}
    assert found == {"byol": load_config("demo-byol"), "cnnjepa": load_config("demo"),
                     "random_init": load_config("demo", overrides=["method.name=random_init"])}  # fmt: skip
    assert baseline_arm(study, requested_trials(study)).label == "cnnjepa"
    assert "view.blur" not in " ".join(changes_of("demo", "byol"))  # what the method has anyway is not said
    assert method_study("in100", None, {}).published == "main"


def test_what_is_set_holds_for_every_method() -> None:
    study = method_study("demo", ["simclr", "supervised"], {"optimizer.lr": 0.5, "runtime.epochs": 3})
    study = study.model_copy(update={"set": {"optimizer.lr": 0.5, "runtime.epochs": 3}})
    for _, _, config in requested_trials(study):
        assert (config.optimizer.lr, config.runtime.epochs) == (0.5, 3)


def test_wrong_methods_and_presets_are_refused_with_the_legal_ones() -> None:
    with pytest.raises(ConfigError, match=r"'simcrl' must be one of .* with preset demo.*nearest is 'simclr'"):
        method_study("demo", ["simcrl"], {})
    with pytest.raises(
        ConfigError, match="no other methods to compare with; must be one of cifar, demo, in100, in1k, tiny64"
    ):
        method_study("smoke", None, {})


def steps_of(seconds: list[float], **more: object) -> dict[str, object]:
    return {"seconds": seconds, "flops_per_image": 1e9, "memory_bytes": 2**30, "images": 32, **more}


def costs_file(path: Path, **changes: object) -> Path:
    seconds = {"cnnjepa": [0.2, 0.1, 0.3], "simclr": [0.3, 0.4, 0.5], "byol": [9.0, 9.0, 9.0]}
    record = {"title": "a training step", "preset": "demo", "batch": 32, "image_size": 32,
              "methods": {name: steps_of(times) for name, times in seconds.items()},
              "environment": {}, **changes}  # fmt: skip
    path.write_text(json.dumps(record))
    return path


def test_equal_time_gives_each_method_the_epochs_that_take_as_long(tmp_path: Path) -> None:
    costs = costs_file(tmp_path / "costs.json")
    asked, fixed = ["random_init", "cnnjepa", "simclr", "byol"], {"runtime.epochs": 12}
    epochs = equal_time_epochs(costs, "demo", asked, fixed)
    assert epochs == {"cnnjepa": 12, "simclr": 6, "byol": 1}  # half as fast; 0.27 epochs of BYOL are one
    study = method_study("demo", asked, fixed, epochs)
    lengths = {arm.label: arm.changes.get("runtime.epochs") for arm in arms_of(study)}
    assert lengths == {"random_init": None, **epochs} and study.name == "methods-demo-equal-time"


@pytest.mark.parametrize(
    ("changes", "methods", "message"),
    [
        (
            {"batch": 16},
            ["cnnjepa"],
            "batch 16 in the file, 32 requested.*--cost --preset demo --batch 32 --image-size 32",
        ),
        ({"preset": "tiny64"}, ["cnnjepa"], "preset tiny64 in the file, demo requested"),
        ({}, ["vicreg"], "vicreg was not measured; the file has byol, cnnjepa, simclr"),
        (
            {"methods": {"byol": steps_of([1.0])}},
            ["byol"],
            r"benchmark --cost` \(Value error, the steps of cnnjepa are missing\); measure again",
        ),
        (
            {"methods": {"cnnjepa": steps_of([])}},
            ["cnnjepa"],
            r"benchmark --cost` \(methods\.cnnjepa\.seconds: .*at least 1",
        ),
        (
            {"methods": {"cnnjepa": steps_of([1.0]), "byol": steps_of([1.0, 2.0])}},
            ["byol"],
            "byol has 2 steps, but 1 of cnnjepa",
        ),
    ],
)
def test_times_of_something_else_are_refused(
    changes: dict[str, object], methods: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        equal_time_epochs(costs_file(tmp_path / "costs.json", **changes), "demo", methods, {})
    with pytest.raises(ConfigError, match="was not written by `cnnjepa benchmark --cost`"):
        equal_time_epochs(tmp_path / "none.json", "demo", methods, {})


@pytest.mark.slow
@pytest.mark.processes
def test_one_command_compares_methods_and_runs_nothing_twice(tmp_path: Path) -> None:
    sets = ["train_images=96", "val_images=64", "runtime.batch_size=16", "runtime.epochs=2", "linear_epochs=2",
            "linear_batch_size=32", "width=0.125", "device=cpu", "probe.floors=false", "held_out_ks=[5]",
            "held_out_lrs=[0.01]"]  # fmt: skip
    flags = [word for text in sets for word in ("--set", text)]
    asked = ["--methods", "cnnjepa,simclr,random_init", *flags, "--executor", "local", "--root", str(tmp_path)]
    done = cnnjepa("benchmark", *asked)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in ("cnnjepa (baseline)", "simclr", "random_init"))
    again = cnnjepa("benchmark", *asked)
    assert again.returncode == 0 and "3 done before, 0 left" in again.stderr
    planned = cnnjepa("benchmark", *asked, "--seeds", "0,1", "--plan", "--images-per-s", "100")
    assert planned.returncode == 0, planned.stderr
    assert "3 of them finished before and would not be run again; 3 left: about" in planned.stderr + planned.stdout


@pytest.mark.processes
def test_a_missing_method_on_the_command_line_is_one_message() -> None:
    done = cnnjepa("benchmark", "--methods", "moco")
    assert done.returncode == 2 and "must be one of random_init, supervised, cnnjepa" in done.stderr
    assert "Traceback" not in done.stderr
    done = cnnjepa("benchmark", "--cost", "--methods", "random_init")
    assert done.returncode == 2 and "makes no step" in done.stderr


def small(method: str) -> PretrainConfig:
    return load_config("smoke", overrides=[f"method.name={method}", "runtime.batch_size=8", "device=cpu"])


@pytest.mark.slow
@pytest.mark.processes
def test_steps_are_measured_in_turns_in_processes_of_their_own() -> None:
    told: list[str] = []
    names = ("cnnjepa", "byol", "supervised")
    found = step_costs({name: small(name) for name in names}, 3, 1, told.append)
    assert tuple(found) == names and [len(cost.seconds) for cost in found.values()] == [6, 3, 3]
    assert found["cnnjepa"].seconds == found["byol"].reference_seconds + found["supervised"].reference_seconds
    assert all(cost.memory_bytes > 0 and cost.flops_per_image > 0 and cost.median > 0 for cost in found.values())
    assert found["byol"].memory_bytes > found["cnnjepa"].memory_bytes  # its heads are wider than this encoder
    assert told[-3:] == [f"supervised: round {number} of 3" for number in (1, 2, 3)]


def test_the_cost_table_is_whole_on_a_terminal_of_80_columns() -> None:
    from rich.console import Console

    from cnnjepa.cli.cost_table import _table

    found = {
        "cnnjepa": StepCost([0.0123] * 9, [0.0123] * 9, 12.9e9, int(9.87 * 2**30), 16),
        "supervised": StepCost([0.00512] * 3, [0.0123] * 3, 101e6, int(0.98 * 2**30), 16),
        "ijepa-base": StepCost([123.4, 125.6, 127.8], [0.0123] * 3, 1.23e12, int(97.65 * 2**30), 16),
        "byol": StepCost([0.0246] * 3, [0.0123] * 3, 33.4e9, int(12.34 * 2**30), 16),
    }
    console = Console(width=80, color_system=None)
    with console.capture() as captured:
        console.print(_table(found, "a training step"))
    lines = captured.get().splitlines()
    assert "…" not in captured.get() and max(map(len, lines)) <= 80
    rows = {line.split()[0]: line.split() for line in lines if line.split() and line.split()[0] in found}
    assert rows["ijepa-base"][1:] == ["126", "10211", "0.127", "1.23", "T", "95.35", "97.65", "9.89", "0.00"]
    assert rows["byol"][1:] == ["0.0246", "2.00", "650", "33.4", "G", "2.59", "12.34", "1.25", "0.50", "0.65"]
    assert rows["supervised"][1:4] == ["0.00512", "0.42", "3,125"]
    head = next(line for line in lines if line.startswith("method"))
    assert head.split() == ["method", "s/step", "ratio", "images/s", "FLOP", "ratio", "GiB", "ratio", "takes", "paper"]


@pytest.mark.slow
@pytest.mark.processes
def test_the_cost_table_names_ratios_and_is_written(tmp_path: Path) -> None:
    asked = ["--methods", "supervised", "--batch", "4", "--rounds", "1", "--threads", "1", "--root", str(tmp_path)]
    done = cnnjepa("benchmark", "--cost", "--preset", "demo", *asked)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "benchmarks" / "method_cost.json").read_text())
    assert (record["preset"], record["batch"], record["image_size"]) == ("demo", 4, 32)
    assert set(record["methods"]) == {"cnnjepa", "supervised"} and "batch 4, 32 px" in record["title"]
    assert "cnnjepa" in done.stdout and torch.__version__.startswith(record["environment"]["torch"])
