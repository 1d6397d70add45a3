"""The figures of a report: which runs they are of, and which are compared."""

import json
from pathlib import Path

import pytest
from reports import DEPTHS, comparison, outcome, table
from studies import figures, planned, result_of, write_run, write_study

from cnnjepa.ablations.report.build import build_report
from cnnjepa.ablations.report.published_rows import ENCODER_PARAMS, published_tables
from cnnjepa.ablations.report.tables.accuracy_notes import _floor_notes
from cnnjepa.schemas import Floors, PretrainConfig, ProbeFigures, Probes, WarmStart
from cnnjepa.schemas.study import Study

pytestmark = pytest.mark.usefixtures("blank_pictures")


@pytest.mark.medium
def test_the_csv_holds_what_can_be_computed_by_hand(reported: Path) -> None:
    rows = {row["arm"]: row for row in table(reported / "studies" / "depths" / "report", "depths_accuracy_held_out")}
    four = rows["depth=4"]
    assert float(four["linear_top1_mean"]) == pytest.approx((70.5 + 70.9 + 76.1) / 3)
    assert float(four["linear_top1_difference_mean"]) == pytest.approx((0.5 - 0.1 + 4.1) / 3)
    assert (four["n"], four["linear_top1_verdict"]) == ("3", "not distinguishable at n = 3")
    assert float(four["linear_top5_mean"]) == pytest.approx(float(four["linear_top1_mean"]) + 10)
    assert rows["depth=2"]["linear_top1_difference_p"] == ""
    # Every number leads to its runs, and each run to its hashes and commit.
    runs = {row["run"]: row for row in table(reported / "studies" / "depths" / "report", "depths_runs")}
    for pair in four["runs"].split():
        seed, run = pair.split(":")
        assert runs[run]["seed"] == seed and runs[run]["arm"] == "depth=4"
        assert runs[run]["config_hash"].startswith(run) and len(runs[run]["config_hash"]) == 64
        assert runs[run]["commit"] == "0123456789abcdef"
        there = (reported / "studies" / "depths" / "report" / runs[run]["folder"] / "result.json").resolve()
        assert json.loads(there.read_text())["pretrain_hash"] == runs[run]["config_hash"]


def test_every_published_row_can_be_matched_and_its_encoder_has_a_size() -> None:
    from cnnjepa.ablations.report.published_rows import CONFIG_PATH

    for name, one in published_tables().items():
        for row in one.rows:
            assert row.arm.keys() <= CONFIG_PATH.keys(), (name, row.arm)
            assert row.encoder in ENCODER_PARAMS


def test_the_known_encoder_sizes_are_torchvision_s() -> None:
    import torch
    import torchvision

    for name in ("resnet50", "wide_resnet50_2", "resnet152"):
        with torch.device("meta"):
            network = getattr(torchvision.models, name)()
        count = sum(p.numel() for p in network.parameters()) - sum(p.numel() for p in network.fc.parameters())
        assert ENCODER_PARAMS[name] == pytest.approx(count, rel=0.005), name


def test_linear_and_knn_of_a_row_are_always_of_the_same_runs(tmp_path: Path) -> None:
    """A run that lacks one of the two figures gives neither, and the table says so."""
    trials = write_study(tmp_path, DEPTHS, outcome)
    torn = next(t for t in trials if t.label == "depth=3, seed 1")
    whole = result_of(torn, 99.0, 98.0)
    half = whole.model_copy(update={"probes": Probes(held_out=ProbeFigures(linear_top1=99.0), published=None)})
    write_run(tmp_path, torn, half)
    row = next(row for row in comparison(tmp_path).rows if row.arm.label == "depth=3")
    assert list(row.counted) == [0, 2]
    assert row.values["linear_top1"].keys() == row.values["knn_top1"].keys() == {0, 2}
    assert row.problems == ["1 of 3 without both figures of this protocol"]


@pytest.mark.medium
def test_different_images_and_protocols_never_share_a_table(tmp_path: Path) -> None:
    study = Study(
        name="sizes", preset="smoke", axes={"data.image_size": (32, 64), "predictor.depth": (1, 2)}, seeds=(0, 1, 2)
    )

    def name(config: PretrainConfig) -> str:
        return f"synthetic-{config.data.image_size}"

    write_study(tmp_path, study, lambda arm, seed: (50.0 + seed * seed, 40.0 + seed), planned(study, name))
    build_report(tmp_path, [])
    tables = {p.stem for p in (tmp_path / "studies/sizes/report/tables").glob("*.csv")}
    assert tables == {
        "sizes_accuracy_synthetic-32_held_out", "sizes_accuracy_synthetic-32_published",
        "sizes_accuracy_synthetic-64_held_out", "sizes_accuracy_synthetic-64_published", "sizes_cost_synthetic-32",
        "sizes_cost_synthetic-64", "sizes_runs",
    }  # fmt: skip
    rows = table(tmp_path / "studies/sizes/report", "sizes_accuracy_synthetic-64_held_out")
    assert {row["arm"].split(",")[0] for row in rows} == {"image_size=64"}
    assert {row["linear_top1_verdict"] for row in rows} == {"no baseline here"}
    # In the main table too: the other size is a row of its own table, and only at the baseline's depth.
    main = {p.stem for p in (tmp_path / "report/tables").glob("main_*.csv")}
    assert main == {f"main_synthetic-{s}_{p}" for s in (32, 64) for p in ("held_out", "published")}
    assert len(table(tmp_path / "report", "main_synthetic-64_held_out")) == 1


def test_arms_that_are_the_same_runs_are_not_compared_with_themselves(tmp_path: Path) -> None:
    study = Study(
        name="same", preset="smoke", axes={"masks": {"preset": {}, "again": {"masking.strategy": "mixed"}}},
        seeds=(0, 1),
    )  # fmt: skip
    write_study(tmp_path, study, lambda arm, seed: (50.0 + seed, 40.0))
    rows = {row.arm.label: row for row in comparison(tmp_path, "same").rows}
    assert rows["again"].differences["linear_top1"].verdict == "same runs"


@pytest.mark.medium
def test_a_run_that_trains_nothing_is_not_said_to_fail_at_it(tmp_path: Path) -> None:
    study = Study(name="seen", preset="smoke", axes={"predictor.depth": (1, 2)}, seeds=(0,))
    trials = write_study(tmp_path, study, lambda arm, seed: (3.0, 3.0))  # below the floors of `result_of`
    write_run(tmp_path, trials[0], result_of(trials[0], 3.0, 3.0, method="random_init"))
    built = build_report(tmp_path, ["seen"], tmp_path / "out")
    (said,) = [text for _, texts in built.sentences for text in texts if "linear" in text and "Not above" in text]
    assert trials[1].arm.label in said and trials[0].arm.label not in said


@pytest.mark.medium
def test_the_floor_of_given_weights_is_called_a_warm_start(tmp_path: Path) -> None:
    study = Study(name="warm", preset="smoke", axes={"predictor.depth": (1, 2)}, seeds=(0,))
    trials = write_study(tmp_path, study, lambda arm, seed: (3.0, 3.0))
    floors = Floors(warm_start=Probes(held_out=figures(44.0, 45.0)))
    start = WarmStart(source="timm's resnet18.a1_in1k", fingerprint="0" * 64, notes=("left out: fc (2 tensors)",))
    write_run(tmp_path, trials[0], result_of(trials[0], 30.0, 30.0, floors=floors, warm_start=start))
    built = build_report(tmp_path, ["warm"], tmp_path / "out")
    said = [text for _, texts in built.sentences for text in texts if "Not above" in text and "linear" in text]
    depth_1, depth_2 = (trial.arm.label for trial in trials)
    assert said == [
        f"Not above the untrained encoder by linear top-1: {depth_2} (3.0 against 4.0). Pretraining shows no benefit.",
        f"Not above the warm start by linear top-1: {depth_1} (30.0 against 44.0). Pretraining shows no benefit.",
    ]
    notes = " ".join(_floor_notes(comparison(tmp_path, "warm")))
    assert "the untrained encoder linear 4.0" in notes and "the warm start linear 44.0" in notes
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "warm start: weights of timm's resnet18.a1_in1k; left out: fc (2 tensors)" in page.replace("\\u0027", "'")
