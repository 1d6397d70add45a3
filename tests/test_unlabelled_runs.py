"""Runs on images without labels: no accuracy anywhere, diagnostics everywhere."""

import csv
import json
from pathlib import Path

import pytest
from commands import cnnjepa
from image_sets import encoded, picture
from typer.testing import CliRunner

from cnnjepa.ablations.data_facts import Resolver
from cnnjepa.cli.app import app
from cnnjepa.cli.summary import print_summary
from cnnjepa.data import open_data
from cnnjepa.export.card import model_card
from cnnjepa.export.exported_encoder import ExportedEncoder
from cnnjepa.schemas import ConfigError, PretrainConfig, TrialResult, load_config
from cnnjepa.training.pretrain import pretrain
from cnnjepa.training.reprobe import reprobe

ACCURACY = ("top-1", "k-nn", "linear", "%")
SETTINGS = [
    "image_size=32", "batch_size=8", "runtime.epochs=2", "warmup_epochs=0", "linear_epochs=2", "held_out_lrs=[0.01]",
    "held_out_ks=[3]", "workers=0", "device=cpu", "probe.every_epochs=1", "floors=[untrained]",
]  # fmt: skip


def photos(root: Path, *folders: str, count: int = 20) -> Path:
    """Images of 32 x 32 pixels, `count` in each folder."""
    for number, folder in enumerate(folders):
        (root / folder).mkdir(parents=True)
        for i in range(count):
            (root / folder / f"{i:02d}.png").write_bytes(encoded(picture(100 * number + i, 32, 32)))
    return root


def config_for(data: Path, *overrides: str) -> PretrainConfig:
    return load_config("smoke", data=data, overrides=[*SETTINGS, *overrides])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("unlabelled")
    pretrain(config_for(photos(root / "photos", "flat")), root / "run")
    return root / "run"


def result_of(run: Path) -> TrialResult:
    return TrialResult.model_validate_json((run / "result.json").read_bytes())


def test_a_run_without_labels_has_diagnostics_and_no_accuracy(run: Path) -> None:
    raw = json.loads((run / "result.json").read_text())
    assert raw["probes"] is None and raw["selection"] is None and not any(raw["floors"].values())
    assert raw["diagnostics"]["rankme"] > 1 and raw["diagnostics"]["feature_std"] > 0.01
    assert (raw["status"], raw["train_images"], raw["val_images"]) == ("finished", 18, 2)
    result = result_of(run)
    assert result.by_set == () and result.first_set.probes.held_out is None


def test_online_probes_log_rank_and_spread_and_choose_the_best_checkpoint_by_rank(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    probes = [line for line in lines if line["kind"] == "probe"]
    figures = {"rankme", "lidar", "feature_std", "heldout_loss"}  # two images have no spectrum for alpha_req
    assert [set(line) - {"kind", "step", "epoch", "probe_hash"} for line in probes] == [figures]
    assert (run / "checkpoints" / "best.pt").is_file()


def test_the_figures_without_labels_are_in_the_result(run: Path) -> None:
    health = result_of(run).diagnostics
    assert health is not None and health.collapse_evidence is None
    assert health.lidar == pytest.approx(1, abs=0.01)  # two images have one direction between them
    assert health.heldout_loss is not None and 0 < health.heldout_loss < 2
    assert health.alpha_req is None  # two images have one eigenvalue


def test_summary_and_model_card_show_no_accuracy(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(result_of(run), run)
    shown = capsys.readouterr().out
    assert "has no labels" in shown and "RankMe" in shown and "feature spread" in shown
    health = result_of(run).diagnostics
    assert health and f"LiDAR {health.lidar:.1f}" in shown and f"held-out loss {health.heldout_loss:.4f}" in shown
    assert not [word for word in ("top-1", "k-NN", "Wilson", "floor") if word in shown]
    card = model_card(ExportedEncoder.of(run, None, "last.pt"), "ours", "load()")
    figures = card.partition("## What it is worth")[2].partition("## How it was trained")[0]
    assert (
        "The images have no labels, so no accuracy was measured." in figures and "| RankMe | LiDAR | α-ReQ |" in figures
    )
    cells = f"{health.rankme:.1f} | {health.lidar:.1f} | – | {health.feature_std:.3f} | {health.heldout_loss:.4f}"
    assert f"| {cells} |" in figures
    assert "top-1" not in figures


def test_a_collapse_is_seen_without_labels(tmp_path: Path) -> None:
    root = tmp_path / "grey"
    root.mkdir()
    for i in range(20):
        (root / f"{i}.png").write_bytes(encoded(picture(1, 32, 32)))
    result = pretrain(config_for(root, "runtime.epochs=1", "probe.every_epochs=0"), tmp_path / "run")
    assert result.status == "collapsed" and result.probes is None and result.diagnostics
    assert "unit-length features lie within" in str(result.diagnostics.collapse_evidence)


def test_a_method_that_learns_from_labels_is_refused(tmp_path: Path) -> None:
    config = config_for(photos(tmp_path / "photos", "flat"), "method.name=supervised")
    for refuse in (lambda: pretrain(config, tmp_path / "run"), lambda: Resolver("cpu", 1)(config)):
        with pytest.raises(ConfigError, match="method supervised learns from labels, and folder-photos has none"):
            refuse()
    assert not (tmp_path / "run").exists()


@pytest.mark.medium
def test_labels_none_is_for_every_source(tmp_path: Path) -> None:
    config = load_config("smoke", overrides=["data.labels=none"])
    bare, labelled = open_data(config.data), open_data(load_config("smoke").data)
    assert not bare.labelled and bare.resident and bare.fingerprint != labelled.fingerprint
    with pytest.raises(ConfigError, match="this source has auto and none"):
        load_config("smoke", overrides=["data.labels=folders"])


def test_a_search_for_an_accuracy_is_refused_with_what_is_possible(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", "flat")
    asked = ["search", "--preset", "smoke", "--data", str(root), "--space", "optimizer.lr=log(1e-4, 1e-1)"]
    asked += ["--root", str(tmp_path), "--no-prune", "--set", "image_size=32"]
    found = CliRunner().invoke(app, asked)
    assert isinstance(found.exception, ConfigError)
    assert "--objective knn is an accuracy, and folder-photos has no labels" in str(found.exception)
    assert "rankme, lidar, alpha_req or loss, which need no labels" in str(found.exception)
    metric = [*asked, "--objective", "metric:class_mean_top1", "--set", "probe.metrics=class_means"]
    found = CliRunner().invoke(app, metric)
    assert "--objective metric:class_mean_top1 needs labels, and folder-photos has none" in str(found.exception)
    assert "data.labels" in str(found.exception) and "--probe-data PATH" in str(found.exception)


def test_a_run_without_labels_is_probed_on_a_labelled_set_afterwards(run: Path, tmp_path: Path) -> None:
    labelled = photos(tmp_path / "labelled", *(f"{s}/{c}" for s in ("train", "val") for c in "ab"), count=12)
    probed = reprobe(run, overrides=[f'probe.data=["{labelled}"]'])
    assert probed.written is not None and probed.written.parent.name == "results"
    assert list(probed.result.probe_sets or {}) == ["folder-labelled"]
    assert probed.result.first_set.probes.held_out is not None and probed.result.first_set.val_images == 24
    assert result_of(run).probes is None
    shown = reprobe(run, data_path=labelled)
    assert shown.written is None and shown.result.first_set.probes == probed.result.first_set.probes
    assert shown.result.diagnostics != probed.result.diagnostics  # of other validation images


@pytest.mark.medium
def test_metrics_of_an_unlabelled_run_are_those_of_its_probe_sets(tmp_path: Path) -> None:
    flat = photos(tmp_path / "photos", "flat")
    sets = [tmp_path / name for name in ("two", "three")]
    for place, classes in zip(sets, ("ab", "abc"), strict=True):
        photos(place, *(f"{split}/{one}" for split in ("train", "val") for one in classes), count=6)
    settings = ("runtime.epochs=1", "probe.every_epochs=0", "floors=false", "probe.metrics=class_means")
    with pytest.raises(ConfigError, match=r"probe\.metrics class_means need labels, and folder-photos has none"):
        pretrain(config_for(flat, *settings), tmp_path / "refused")
    one = pretrain(config_for(flat, *settings, f'probe.data=["{sets[0]}"]'), tmp_path / "run")
    names = ["class_mean_top1", "class_mean_balanced", "class_mean_worst"]
    assert list(one.metrics) == names and one.diagnostics and one.diagnostics.lidar is not None
    both = reprobe(tmp_path / "run", overrides=[f'probe.data=["{sets[0]}", "{sets[1]}"]']).result
    assert list(both.metrics) == [f"folder-{place}: {name}" for place in ("two", "three") for name in names]
    # Two classes of six validation images each: the same figures as alone, computed from the same features.
    assert [both.metrics[f"folder-two: {name}"] for name in names] == list(one.metrics.values())
    assert all(value * 12 % 100 == pytest.approx(0) for name, value in one.metrics.items() if name == "class_mean_top1")
    assert both.diagnostics == one.diagnostics


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.ray
def test_a_study_over_unlabelled_images_from_its_start_to_its_report(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", "flat", count=100)
    asked = [
        "ablate",
        "predictor",
        "--depths",
        "1,2",
        "--preset",
        "smoke",
        "--data",
        str(root),
        "--root",
        str(tmp_path),
    ]
    for setting in (*SETTINGS, "log_every_steps=5"):
        asked += ["--set", setting]
    # In a process of its own: Ray must not have been imported before its settings are made.
    done = cnnjepa(*asked, "--name", "s")
    assert done.returncode == 0, done.stderr
    table = " ".join(done.stdout.split())
    assert "without labels" in table and "LiDAR" in table and "held-out" in table and "top-1" not in table
    report = CliRunner().invoke(app, ["report", "s", "--root", str(tmp_path)])
    assert report.exit_code == 0, report.output
    folder = tmp_path / "studies" / "s" / "report"
    rows = list(csv.DictReader((folder / "tables" / "s_diagnostics.csv").read_text(encoding="utf-8").splitlines()))
    results = {r.pretrain_hash: r for r in map(result_of, (tmp_path / "runs" / "by_hash").iterdir())}
    assert len(rows) == len(results) == 2
    losses = sorted(
        r.diagnostics.heldout_loss for r in results.values() if r.diagnostics and r.diagnostics.heldout_loss
    )
    assert sorted(float(row["heldout_loss"]) for row in rows) == pytest.approx(losses)
    assert all(float(row["lidar"]) > 1 and float(row["alpha_req"]) > 0 for row in rows)
    assert not list(folder.rglob("s_accuracy*")) and not list(folder.rglob("s_label_free*"))
