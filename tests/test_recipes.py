"""Extensions of every kind from outside the repository, as the recipes show them."""

import csv
import itertools
import json
import pickle
import sys
from pathlib import Path

import pytest
import torch
from recipes import DOCS, shown, written
from runs import assert_same_run, in_process, small_config, train_alone, train_and_die
from study_runs import SMALL, environment, run

import cnnjepa
from cnnjepa.errors import Stopped
from cnnjepa.masks import Masks, sample_masks
from cnnjepa.schemas import ConfigError, load_config, pretrain_hash
from cnnjepa.schemas.extension import extensions_in
from cnnjepa.training.pretrain import pretrain

RECIPES = tuple(f"extend_{kind}.md" for kind in ("method", "masking", "encoder", "data", "augmentation", "metric"))
SHORT = ("epochs=1", "warmup_epochs=0", "floors=false", "train_images=32", "runtime.batch_size=8")


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_short(recipe: str) -> None:
    assert len((DOCS / recipe).read_text(encoding="utf-8").splitlines()) <= 60
    assert len(shown(recipe).splitlines()) < 80


def test_a_method_of_ones_own_has_fields_errors_and_a_name_by_its_source(own: str, tmp_path: Path) -> None:
    written("extend_method.md", tmp_path, own)
    named = f"{own}:RegularisedJEPA"
    config = small_config("method.variance=0.2", f"method.name={named}")  # in any order
    assert config.method.variance == 0.2 and config.method.name == named
    assert config.method.masking == small_config().method.masking  # it means the same as the preset's
    assert pickle.loads(pickle.dumps(config)) == config
    assert load_config("smoke", changes={"method.name": named}).probed_encoder == "target"
    with pytest.raises(ConfigError, match=r"method\.variance: -1 is not valid; must be greater"):
        small_config(f"method.name={named}", "variance=-1")
    with pytest.raises(ConfigError, match=r"method\.variants.* nearest is 'method\.variance'"):
        small_config(f"method.name={named}", "method.variants=1")
    for wrong, reason in (
        (f"{own}:Absent", "has no attribute 'Absent'"),
        ("no_such_module:X", f"No module named 'no_such_module'; looked in {tmp_path}"),
        ("json:dumps", "is a function; it must be a class"),
    ):
        with pytest.raises(ConfigError, match=reason):
            small_config(f"method.name={wrong}")
    with pytest.raises(ConfigError, match="Fraction must derive from"):
        pretrain(small_config("method.name=fractions:Fraction"), tmp_path / "run")


def test_a_run_is_named_by_the_source_of_what_it_uses(own: str, tmp_path: Path) -> None:
    names = []
    for edit in ("", "# edited\n"):
        module = f"{own}_{len(names)}"
        (tmp_path / f"{module}.py").write_text(shown("extend_method.md") + edit, encoding="utf-8")
        config = small_config(f"method.name={module}:RegularisedJEPA", "device=cpu", "resident=always")
        (found,) = extensions_in(config)
        names.append((found.fingerprint, pretrain_hash(config, "images", 1)))
    assert names[0][0] != names[1][0] and names[0][1] != names[1][1]


@pytest.mark.kills
@pytest.mark.processes
@pytest.mark.parametrize(
    ("recipe", "setting"),
    [
        ("extend_method.md", "method.name={}:RegularisedJEPA"),
        ("extend_masking.md", "masking.strategy={}:Halves"),
        ("extend_data.md", "data.source={}:Stripes"),
        ("extend_augmentation.md", "augmentation.name={}:Noise"),
    ],
)
def test_an_extension_is_killed_and_resumed_bit_for_bit(own: str, tmp_path: Path, recipe: str, setting: str) -> None:
    written(recipe, tmp_path, own)
    config = small_config(setting.format(own), "floors=false", "checkpoint_every_steps=3", "epochs=2")
    assert in_process(train_and_die, config, tmp_path / "killed", 40, None) == -9
    assert in_process(train_alone, config, tmp_path / "killed", True) == 0
    assert in_process(train_alone, config, tmp_path / "whole") == 0
    assert_same_run(tmp_path / "killed", tmp_path / "whole")
    assert cnnjepa.load_encoder(tmp_path / "killed")(torch.zeros(1, 3, 32, 32)).shape[0] == 1


@pytest.mark.processes
def test_an_edited_method_does_not_resume_an_earlier_run(own: str, tmp_path: Path) -> None:
    written("extend_method.md", tmp_path, own)
    config = small_config(f"method.name={own}:RegularisedJEPA", *SHORT)
    asked = itertools.count()
    with pytest.raises(Stopped):
        pretrain(config, tmp_path / "run", stop_asked=lambda: "enough" if next(asked) >= 2 else None)
    assert (tmp_path / "run" / "checkpoints" / "last.pt").is_file()
    (tmp_path / f"{own}.py").write_text(shown("extend_method.md") + "# edited\n", encoding="utf-8")
    assert in_process(_refused, config, tmp_path / "run") == 0


def _refused(config: object, run: Path) -> None:
    with pytest.raises(ConfigError, match=r"sources\."):
        train_alone(config, run, True)  # type: ignore[arg-type]


def test_a_masking_strategy_of_ones_own_trains(own: str, tmp_path: Path) -> None:
    written("extend_masking.md", tmp_path, own)
    config = small_config(f"masking.strategy={own}:Halves", "left=1", *SHORT)
    context, target = sample_masks(config.method.masking, 8, torch.arange(3), 0, 0)
    assert target[:, :, :4].all() and context[:, :, 4:].all() and not (context & target).any()
    assert config.visible_share == 0.5
    assert pretrain(config, tmp_path / "run").status == "finished"


def test_masks_that_are_not_as_promised_are_refused(own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written("extend_masking.md", tmp_path, own)
    masking = small_config(f"masking.strategy={own}:Halves").method.masking
    halves = sys.modules[own].Halves
    everything = torch.ones(3, 8, 8, dtype=torch.bool)
    for masks, reason in (
        (Masks(everything, everything), "a cell is both context and target"),
        (Masks(~everything, everything), "a sample has no context cell"),
        (Masks(everything[:2], everything), r"context must be boolean \[3, 8, 8\]"),
        ((everything,), r"draw must give Masks\(context, target\)"),
    ):
        monkeypatch.setattr(halves, "draw", lambda *given, masks=masks: masks)
        with pytest.raises(Exception, match=reason):
            sample_masks(masking, 8, torch.arange(3), 0, 0)


def test_a_data_source_of_ones_own_trains(own: str, tmp_path: Path) -> None:
    written("extend_data.md", tmp_path, own)
    short = [word for word in SHORT if "train_images" not in word]
    config = load_config(
        "smoke", overrides=[f"data.source={own}:Stripes", "count=32", "linear_epochs=2", "device=cpu", *short]
    )
    result = pretrain(config, tmp_path / "run")
    assert (result.status, result.dataset, result.train_images) == ("finished", "Stripes", 32)
    monkey = sys.modules[own].Stripes
    del monkey.fingerprint
    with pytest.raises(ConfigError, match="it has no fingerprint; an ImageSource has labels, class_names"):
        pretrain(config, tmp_path / "again")


def test_an_encoder_of_ones_own_is_named_by_arch(own: str, tmp_path: Path) -> None:
    written("extend_encoder.md", tmp_path, own)
    config = small_config(f"encoder.arch={own}:Net", "out_channels=24", "strategy=random", *SHORT)
    assert config.encoder.total_stride == 4 and config.grid == 8
    result = pretrain(config, tmp_path / "run")
    assert result.encoder == f"{own}:Net"
    assert cnnjepa.load_encoder(tmp_path / "run")(torch.zeros(1, 3, 32, 32)).shape == (1, 24, 8, 8)
    old = small_config("arch=custom", f"encoder.module={own}:Net", "total_stride=4")
    assert list(extensions_in(old)) == []  # its name holds the class alone, as before


@pytest.mark.processes
@pytest.mark.slow
def test_extensions_are_ablated_over_two_seeds_and_reported_next_to_ours(own: str, tmp_path: Path) -> None:
    """Ours and one's own method, masking strategy, data source and augmentation, all measured by one's own metric: one
    study, two seeds, one report."""
    for kind in ("method", "masking", "data", "augmentation", "metric"):
        written(f"extend_{kind}.md", tmp_path, f"{own}_{kind}")
    mine = f"{own}_method:RegularisedJEPA"
    arms = {
        "ours": {},
        "regularised": {"variance": 0.2, "method.name": mine},
        "halves": {"masking.strategy": f"{own}_masking:Halves"},
        "stripes": {"data.source": f"{own}_data:Stripes"},
        "noise": {"augmentation.name": f"{own}_augmentation:Noise", "noise": 0.05},
    }
    short = ["epochs=1", "warmup_epochs=0", *(text for text in SMALL if not text.startswith("epochs"))]
    short.append(f"probe.metrics={own}_metric:Ridge")
    study = {"name": "mine", "preset": "smoke", "axes": {"method": arms}, "seeds": [0, 1]}
    (tmp_path / "mine.yaml").write_text(json.dumps(study), encoding="utf-8")
    flags = [word for text in short for word in ("--set", text)]
    env = environment(tmp_path / "root")
    code, out = run(
        ["ablate", "mine.yaml", *flags, "--cpus-per-trial", "1", "--images-per-s", "100", "--root", "root"], env, 600
    )
    assert code == 0, out
    results = [json.loads(path.read_text()) for path in (tmp_path / "root" / "runs").rglob("result.json")]
    assert {(result["status"], *result["metrics"]) for result in results} == {
        ("finished", "ridge_top1", "ridge_worst_class")
    }
    found = sorted((result["method"], result["dataset"], result["seed"]) for result in results)
    expected = [("cnnjepa", "synthetic-32")] * 3 + [("cnnjepa", "Stripes"), (mine, "synthetic-32")]
    assert found == sorted((*one, seed) for one in expected for seed in (0, 1))
    code, out = run(["report", "mine", "--root", "root"], env, 600)
    assert code == 0, out
    report = tmp_path / "root" / "studies" / "mine" / "report"
    text = (report / "report.md").read_text(encoding="utf-8")
    assert all(f"| {arm} " in text for arm in arms), text[:3000]
    with (report / "tables" / "mine_metrics_synthetic-32.csv").open(encoding="utf-8") as file:
        rows = {row["arm"]: row for row in csv.DictReader(file)}
    assert set(rows) == set(arms) - {"stripes"} and {row["ridge_top1_n"] for row in rows.values()} == {"2"}
    regularised = [result["metrics"]["ridge_top1"] for result in results if result["method"] == mine]
    assert float(rows["regularised"]["ridge_top1_mean"]) == pytest.approx(sum(regularised) / 2)
