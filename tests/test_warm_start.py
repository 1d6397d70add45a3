"""A run starts from given weights: both encoders, its identity, its floors, and a resume without the weights."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pixel_files import npy, write_deep_images
from runs import assert_same_run, small_config, train_alone, train_until
from typer.testing import CliRunner

from cnnjepa.ablations.data_facts import Resolver
from cnnjepa.ablations.placeless import Placeless
from cnnjepa.ablations.plan import plan, requested_trials
from cnnjepa.ablations.resources import Resources
from cnnjepa.ablations.search.points import trial_record
from cnnjepa.ablations.study_folder import records_of
from cnnjepa.ablations.trial_runner import run_trial
from cnnjepa.cli.app import app
from cnnjepa.cli.study_tables import _floor_rows
from cnnjepa.cli.summary import print_summary
from cnnjepa.encoders import build_backbone
from cnnjepa.export.formats import export_run
from cnnjepa.methods import build_method
from cnnjepa.pretrained import load_encoder
from cnnjepa.probes.floors import untrained_encoder
from cnnjepa.schemas import ConfigError, PretrainConfig, TrialResult, load_config, pretrain_hash
from cnnjepa.schemas.hashing import hashed_settings
from cnnjepa.schemas.space import SearchSpace
from cnnjepa.schemas.study import Study
from cnnjepa.training.pretrain import pretrain
from cnnjepa.training.reprobe import reprobe
from cnnjepa.warm_start.initial_weights import load_initial_weights
from cnnjepa.warm_start.starting import with_initial_weights

pytestmark = pytest.mark.medium

FEW = ("epochs=1", "every_epochs=0", "warmup_epochs=0", "train_images=32")


def result_of(run: Path) -> TrialResult:
    return TrialResult.model_validate_json((run / "result.json").read_bytes())


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one epoch."""
    run = tmp_path_factory.mktemp("warm") / "source"
    train_alone(small_config(*FEW), run)
    return run


@pytest.fixture(scope="module")
def weights(source: Path) -> Path:
    """The target encoder of that run as a bare state dict."""
    path = source.parent / "weights.pt"
    torch.save(load_encoder(source).state_dict(), path)
    return path


@pytest.mark.parametrize(
    "method", ["cnnjepa", "simclr", "byol", "vicreg", "lejepa", "spark", "supervised", "random_init"]
)
def test_every_encoder_of_every_method_starts_from_the_weights(method: str, weights: Path) -> None:
    config = small_config(f"method.name={method}", f"encoder.init={weights}")
    initial = load_initial_weights(config)
    made = build_method(config, 3, initial.state)
    for path in made.encoders.values():
        state = made.get_submodule(path).state_dict()
        assert [name for name, value in initial.state.items() if not torch.equal(state[name], value)] == []
    random = build_method(config, 3).state_dict()
    others = {n: v for n, v in made.state_dict().items() if not n.startswith(("context_encoder", "target_encoder"))}
    assert all(torch.equal(value, random[name]) for name, value in others.items())


def test_the_floor_of_a_warm_start_is_that_of_its_weights_and_is_called_so(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_alone(small_config(*FEW, f"encoder.init={source}"), tmp_path / "warm")
    before, after = result_of(source), result_of(tmp_path / "warm")
    assert after.floors.untrained is None  # type: ignore[union-attr]
    assert after.floors.warm_start == before.probes  # type: ignore[union-attr]
    assert after.floors.pixels == before.floors.pixels  # type: ignore[union-attr]
    assert after.warm_start is not None
    assert after.warm_start.source == "target encoder of run source"
    print_summary(after, tmp_path / "warm")
    said = capsys.readouterr().out
    assert "floor: warm start" in said and "untrained" not in said
    assert "warm start: weights of target encoder of run source" in said
    rows = _floor_rows([after, before], "held_out")
    assert [label for label, *_ in rows] == ["floor: untrained", "floor: warm start", "floor: raw pixels"]
    figures = before.probes.held_out  # type: ignore[union-attr]
    assert rows[1][1] == f"{figures.linear_top1:.1f}"  # type: ignore[union-attr]

    folder, _ = export_run(tmp_path / "warm", "safetensors", tmp_path / "out")
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "| warm start |" in card and "untrained" not in card
    assert "started from the weights of target encoder of run source" in card
    assert str(source) not in card + (folder / "encoder.json").read_text(encoding="utf-8")


def test_the_encoder_without_training_is_the_floor_with_its_own_statistics(source: Path, tmp_path: Path) -> None:
    config = small_config(*FEW, "method.name=random_init", f"encoder.init={source}", "init_encoder=context")
    train_alone(config, tmp_path / "run")
    result = result_of(tmp_path / "run")
    assert result.probes == result.floors.warm_start  # type: ignore[union-attr]
    assert result.warm_start is not None and result.warm_start.source == "context encoder of run source"
    context, found = load_encoder(source, "context").state_dict(), load_encoder(tmp_path / "run").state_dict()
    assert all(torch.equal(found[name], context[name]) for name in found if "num_batches" not in name)


def resolved(init: Path | str, *more: str) -> PretrainConfig:
    """A config whose start is resolved."""
    config = small_config("resident=always", f"encoder.init={init}", *more)
    return with_initial_weights(config)[0]


def test_the_weights_not_their_place_are_in_the_hash(source: Path, weights: Path, tmp_path: Path) -> None:
    shutil.copy(weights, tmp_path / "copy.pt")
    places = (source, weights, tmp_path / "copy.pt", source / "checkpoints" / "last.pt")
    assert len({pretrain_hash(resolved(place), "images", 1) for place in places}) == 1
    context = resolved(source, "init_encoder=context")
    assert pretrain_hash(context, "images", 1) != pretrain_hash(resolved(source), "images", 1)
    random = small_config("resident=always")
    settings = hashed_settings(random, "images", 1)
    assert not [name for name in settings["encoder"] if "init" in name]
    assert pretrain_hash(random, "images", 1) != pretrain_hash(resolved(source), "images", 1)
    with pytest.raises(ValueError, match=r"encoder.init is not decided yet"):
        pretrain_hash(small_config("resident=always", f"encoder.init={source}"), "images", 1)
    back = load_config("smoke", changes={"encoder.init": "random", "encoder.init_fingerprint": "stale"})
    assert back.encoder.init_fingerprint == ""


def test_a_resumed_run_does_not_need_the_weights(weights: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone.pt"
    shutil.copy(weights, gone)
    config = small_config(*FEW, "batch_size=8", f"encoder.init={gone}")
    train_alone(config, tmp_path / "whole")
    train_until(config, tmp_path / "run", 2)
    gone.unlink()
    train_alone(config, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    again = reprobe(tmp_path / "run", overrides=["held_out_ks=[3]"]).result
    assert again.floors.warm_start is not None  # type: ignore[union-attr]
    assert again.warm_start == result_of(tmp_path / "whole").warm_start
    with pytest.raises(ConfigError, match=r"gone.pt: .*does not exist"):
        pretrain(config, tmp_path / "another")


def test_weights_of_another_content_are_another_run(weights: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.pt"
    shutil.copy(weights, mine)
    config = small_config(*FEW, "method.name=random_init", f"encoder.init={mine}")
    train_alone(config, tmp_path / "run")
    other = build_backbone(config.encoder, 7).state_dict()
    torch.save(other, mine)
    (tmp_path / "run" / "initial_encoder.pt").unlink()
    with pytest.raises(ConfigError, match=r"encoder.init_fingerprint: checkpoint \w+, asked \w+"):
        pretrain(config, tmp_path / "run", resume=True)
    with pytest.raises(ConfigError, match=r"started from other weights"):
        reprobe(tmp_path / "run", overrides=["held_out_ks=[3]"])


def test_other_channels_are_adapted_warned_of_and_recorded(weights: Path, tmp_path: Path) -> None:
    write_deep_images(tmp_path / "tiles", 4, npy, "npy")
    more = ("channels=4", "data.dtype=uint16", "mean=[.5,.5,.5,.5]", "std=[.2,.2,.2,.2]", "method.name=random_init")
    config = small_config("epochs=1", "warmup_epochs=0", *more, f"encoder.init={weights}", data=tmp_path / "tiles")
    initial = load_initial_weights(config)
    note = "the first layer conv1.weight is adapted from 3 to 4 channels (weights repeated and scaled by 3/4)"
    assert initial.described.notes == (note,)
    assert initial.warnings == (f"encoder.init: {note}",)
    network = untrained_encoder(config, None, torch.device("cpu"), initial.state)  # type: ignore[arg-type]
    three = torch.load(weights, weights_only=True)["conv1.weight"]
    expected = torch.cat([three, three[:, :1]], 1) * 0.75
    assert torch.allclose(network.conv1.weight, expected, atol=1e-7)  # type: ignore[union-attr,arg-type]


def test_a_study_compares_initial_weights_by_file_and_by_hash(source: Path, weights: Path, tmp_path: Path) -> None:
    name = result_of(source).pretrain_hash
    shutil.copytree(source, tmp_path / "runs" / "by_hash" / name)
    small = {"data.train_images": 32, "data.val_images": 48, "runtime.epochs": 1, "schedule.warmup_epochs": 0}
    settings = {**small, "runtime.device": "cpu", "runtime.batch_size": 16, "probe.linear_epochs": 1}
    study = Study(
        name="inits", preset="smoke", set=settings,
        axes={"encoder.init": ["random", name[:8], str(weights)]}, seeds=(0,),
    )  # fmt: skip
    trials = plan(requested_trials(study), Resolver("cpu", 1, tmp_path))
    random, by_hash, by_file = (trial.pretrain_hash for trial in trials)
    assert by_hash == by_file != random
    assert trials[1].config.encoder.init == str(tmp_path / "runs" / "by_hash" / name)
    record = records_of(trials, trials[0].arm.label, 1)[1]
    run = tmp_path / "runs" / "by_hash" / by_hash
    outcome = run_trial(record, run, tmp_path / "log", tmp_path / "stop")
    assert outcome.status in ("finished", "collapsed"), outcome
    assert result_of(run).floors.warm_start is not None  # type: ignore[union-attr]
    assert "start: weights of target encoder of run" in (tmp_path / "log").read_text()
    floors = sorted(path.name.partition("-")[0] for path in (tmp_path / "runs" / "floors").iterdir())
    assert floors == ["pixels", "untrained"]


def test_a_plan_says_which_weights_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["ablate", "predictor", "--depths", "1", "--preset", "smoke", "--plan", "--images-per-s", "100"]
    found = CliRunner().invoke(app, [*words, "--executor", "local", "--set", "encoder.init=lost.pt"])
    shown = " ".join(found.output.split())
    assert found.exit_code == 0
    assert "is not known: arm depth=1: encoder.init=lost.pt: lost.pt does not exist" in shown


def test_a_search_starts_every_trial_from_weights_at_an_absolute_path(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial of Ray may have another working directory."""
    monkeypatch.chdir(weights.parent)
    space = SearchSpace(
        name="s", preset="smoke", space={"optimizer.lr": "log(1e-4, 1e-1)"}, set={"encoder.init": weights.name}
    )
    resolver = Resolver("cpu", 1, tmp_path)
    record = trial_record(space, {"optimizer.lr": 0.01}, None, Resources(1, 0, 1), resolver)
    assert record.config.encoder.init == str(weights.resolve())


def test_an_archive_names_the_folder_of_weights_without_its_place() -> None:
    settings: dict[str, Any] = {"encoder": {"init": "hf:/home/me/exports/net"}, "data": {"path": "/home/me/images"}}
    archived = Placeless(settings, Path("/root")).value(settings)
    assert archived == {"encoder": {"init": "hf:net"}, "data": {"path": "images"}}


def test_a_result_of_before_reads_and_has_no_warm_start(source: Path) -> None:
    old = json.loads((source / "result.json").read_bytes())
    for added in ("warm_start", "continues"):
        del old[added]
    del old["floors"]["warm_start"]
    read = TrialResult.model_validate(old)
    assert read == result_of(source)
    assert read.floors.start_name == "untrained encoder"  # type: ignore[union-attr]
