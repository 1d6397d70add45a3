"""From studies on disk to every file of the report: what is said, what is not, and what is done about odd input."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from studies import planned, result_of, write_run, write_study

from cnnjepa.ablations.archive import archive_step_costs, archive_study
from cnnjepa.ablations.pool import Pool
from cnnjepa.ablations.report.build import build_report
from cnnjepa.ablations.report.comparison import Comparison, compare
from cnnjepa.ablations.report.published_rows import ENCODER_PARAMS, published_tables
from cnnjepa.ablations.report.reading import read_study
from cnnjepa.ablations.study_files import validated
from cnnjepa.ablations.study_folder import StudyFolder
from cnnjepa.cli.main import main
from cnnjepa.schemas import ConfigError, Diagnostics, PretrainConfig, ProbeFigures, Probes
from cnnjepa.schemas.study import Study

DEPTHS = Study(
    name="depths", question="How deep?", published="predictor_depth", preset="smoke",
    axes={"predictor.depth": (1, 2, 3, 4)}, seeds=(0, 1, 2),
)  # fmt: skip

# Depth 4 has the highest mean by 1.5 points, on the strength of one seed; depth 1 is worse at every seed alike.
LINEAR = {
    "depth=1": (60.0, 61.1, 61.9), "depth=2": (70.0, 71.0, 72.0), "depth=3": (70.2, 70.9, 72.1),
    "depth=4": (70.5, 70.9, 76.1),
}  # fmt: skip


def outcome(arm: str, seed: int) -> tuple[float, float]:
    return LINEAR[arm][seed], LINEAR[arm][seed] - 10


def comparison(root: Path, name: str = "depths", protocol: Any = "held_out") -> Comparison:
    study = read_study(StudyFolder(root, name))
    return compare(study, study.datasets[0], protocol)


def table(folder: Path, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "tables" / f"{name}.csv").read_text(encoding="utf-8"))))


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of two reported studies, one of them half done."""
    root = tmp_path_factory.mktemp("reported")
    write_study(root, DEPTHS, outcome)
    ratios = Study(
        name="ratios", preset="smoke", axes={"masking.ratio": (0.4, 0.6)}, set={"strategy": "random"}, seeds=(0, 1)
    )
    write_study(root, ratios, lambda arm, seed: (50.0 + seed, 40.0) if arm == "ratio=0.6" or seed == 0 else None)
    build_report(root, [])
    return root


CLAIMED: list[dict[str, Any]] = [
    {"says": "One layer is worse.", "arm": {"predictor.depth": 1}, "expect": "worse"},
    {"says": "One layer is better.", "arm": {"predictor.depth": 1}, "expect": "better"},
    {"says": "Three are level.", "arm": {"predictor.depth": 3}, "expect": "level", "margin": 1.5},
    {"says": "One is level.", "arm": {"predictor.depth": 1}, "expect": "level", "margin": 1.5},
    {"says": "Four are worse.", "arm": {"predictor.depth": 4}, "expect": "worse"},
    {"says": "Four are not worse.", "arm": {"predictor.depth": 4}, "expect": "not_worse", "margin": 1.5},
]


def test_claims_are_answered_by_the_rule_that_was_written_down(tmp_path: Path) -> None:
    study = Study(**{**DEPTHS.model_dump(), "claims": CLAIMED})
    write_study(tmp_path, study, outcome)
    words = dict(build_report(tmp_path, []).sentences)["depths"]
    rows = table(tmp_path / "report", "claims")
    assert [row["answer"] for row in rows if row["metric"] == "linear top-1"] == [
        "holds", "does not hold", "holds", "does not hold", "cannot tell", "cannot tell",
    ]  # fmt: skip
    assert rows == table(tmp_path / "studies" / "depths" / "report", "depths_claims")
    first = rows[0]
    assert first["published"] == str(64.86 - 73.22) and float(first["difference_mean"]) == pytest.approx(-10.0)
    assert float(first["difference_p_holm"]) < 0.01 and first["n"] == "3" and first["arm_baseline"] == "depth=2"
    # Four against two: seeds differ by 0.5, -0.1 and 4.1, and six tests share the level.
    assert float(rows[8]["resolved"]) == pytest.approx(8.02 * 2.27, rel=0.01)
    assert float(rows[10]["resolved"]) == pytest.approx(4.303 * 2.27 / 3**0.5, rel=0.01)
    assert words[0].startswith(
        "Claimed beforehand: “One layer is worse.” Protocol held_out: holds by linear top-1 (−10"
    )
    first_line = next(
        x for x in (tmp_path / "report/tables/claims.md").read_text().splitlines() if "One layer is w" in x
    )
    assert "| −8.36 outside |" in first_line  # we found 10.0 below, within a quarter of a point
    assert "points would have been told apart" in words[4] and "the interval is ±5.64, the margin 1.5" in words[5]


def test_a_claim_without_common_seeds_is_not_tested(tmp_path: Path) -> None:
    study = Study(**{**DEPTHS.model_dump(), "claims": CLAIMED, "seeds": (0,)})
    write_study(tmp_path, study, outcome)
    build_report(tmp_path, [])
    assert {row["answer"] for row in table(tmp_path / "report", "claims")} == {"not tested"}


def test_measured_steps_stand_in_the_report_over_all(tmp_path: Path) -> None:
    write_study(tmp_path, DEPTHS, outcome)
    (tmp_path / "benchmarks").mkdir()
    steps = {"cnnjepa": [0.2, 0.1, 0.3], "supervised": [0.2, 0.1, 0.3], "simclr": [0.3, 0.4, 0.5], "byol": [0.4] * 2}
    methods: dict[str, Any] = {
        name: {"seconds": seconds, "flops_per_image": 1e9, "memory_bytes": 2**30, "images": 16}
        for name, seconds in steps.items()
    }
    methods["byol"] |= {"beside": [0.1, 0.11], "flops_per_image": 4e9, "images": 32}
    record = {"title": "a step", "preset": "demo", "batch": 16, "image_size": 32, "methods": methods,
              "environment": {"cpu": "a test's", "gpus": []}}  # fmt: skip
    path = tmp_path / "benchmarks" / "method_cost.json"
    path.write_text(json.dumps(record))
    assert build_report(tmp_path, []).warnings == ()
    rows = {row["method"]: row for row in table(tmp_path / "report", "step_cost")}
    assert [row["answer"] for row in rows.values()] == ["", "", "cannot tell", "holds"]
    assert float(rows["byol"]["share"]) == pytest.approx(2 * (0.1 * 0.11) ** 0.5 / 0.4)
    assert float(rows["byol"]["share_high"]) < 1 < float(rows["simclr"]["share_high"])
    assert rows["byol"]["flops_share"] == "0.25" and rows["byol"]["memory_share"] == "2.0"
    methods["byol"]["memory_bytes"] = 0
    path.write_text(json.dumps(record))
    build_report(tmp_path, [])
    assert table(tmp_path / "report", "step_cost")[3]["memory_share"] == ""
    path.write_text("{")
    (warning,) = build_report(tmp_path, []).warnings
    assert warning.startswith("benchmarks/method_cost.json: is not a file that `cnnjepa benchmark --cost` wrote")


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({"margin": 1.0}, "has no margin"),
        ({"expect": "level"}, "needs a margin"),
        (
            {"arm": {"predictor.depth": 9}},
            "'One layer is worse.': axis 'predictor.depth' has no 9; must be one of 1, 2",
        ),
        ({"arm": {"depth": 1}}, "names axis 'depth'; the axes are predictor.depth"),
    ],
)
def test_a_claim_must_make_sense(claim: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        validated({**DEPTHS.model_dump(), "claims": [{**CLAIMED[0], **claim}]}, "a study")


def test_a_naive_reading_claims_a_winner_and_ours_does_not(tmp_path: Path) -> None:
    write_study(tmp_path, DEPTHS, outcome)
    found = {row.arm.label: row for row in comparison(tmp_path).rows}
    means = {label: row.estimates["linear_top1"].mean for label, row in found.items()}
    assert max(means, key=means.__getitem__) == "depth=4" and means["depth=4"] - means["depth=2"] > 1
    assert found["depth=4"].differences["linear_top1"].verdict == "indistinguishable"
    assert found["depth=1"].differences["linear_top1"].verdict == "worse"
    assert found["depth=2"].differences["linear_top1"].verdict == "baseline"
    words = " ".join(dict(build_report(tmp_path, ["depths"]).sentences)["depths"])
    assert "depth=4 has the highest mean linear top-1" in words and "it is not a winner" in words
    assert "Worse than depth=2 by linear top-1 on synthetic-32, protocol held_out: depth=1 by −10.00 points" in words
    assert "etter than" not in words


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


def test_failed_and_collapsed_trials_are_shown_and_never_averaged(tmp_path: Path) -> None:
    trials = write_study(tmp_path, DEPTHS, outcome)
    by_label = {trial.label: trial for trial in trials}
    health = Diagnostics(rankme=1.0, feature_std=0.0, feature_dim=32, collapse_evidence="RankMe is 1.000 of 32")
    for seed in (0, 1):
        trial = by_label[f"depth=3, seed {seed}"]
        write_run(tmp_path, trial, result_of(trial, 5.0, 5.0, status="collapsed", diagnostics=health))
    trial = by_label["depth=4, seed 0"]
    failure = result_of(trial, 0, 0, status="failed", error="the disk is full", probes=Probes(), diagnostics=None)
    write_run(tmp_path, trial, failure)
    rows = {row.arm.label: row for row in comparison(tmp_path).rows}
    assert rows["depth=3"].values["linear_top1"] == {2: 72.1}
    assert rows["depth=3"].problems == ["2 of 3 collapsed"]
    assert rows["depth=3"].differences["linear_top1"].verdict == "no test"
    assert rows["depth=4"].problems == ["1 of 3 failed"] and len(rows["depth=4"].counted) == 2
    words = " ".join(dict(build_report(tmp_path, ["depths"]).sentences)["depths"])
    assert "Collapsed, shown and not averaged: depth=3 at 2 of 3 seeds" in words and "Failed: depth=4" in words
    page = (tmp_path / "studies/depths/report/report.html").read_text(encoding="utf-8")
    assert "the disk is full" in page and "RankMe is 1.000 of 32" in page


def test_not_a_number_is_unreadable_and_named_rather_than_averaged(tmp_path: Path) -> None:
    trials = write_study(tmp_path, DEPTHS, outcome)
    run = tmp_path / "runs" / "by_hash" / trials[0].pretrain_hash
    content = json.loads((run / "result.json").read_text())
    content["probes"]["held_out"]["linear_top1"] = float("nan")
    (run / "result.json").write_text(json.dumps(content))
    torn = tmp_path / "runs" / "by_hash" / trials[1].pretrain_hash / "result.json"
    torn.write_text(torn.read_text()[:100])
    swapped = tmp_path / "runs" / "by_hash" / trials[2].pretrain_hash / "result.json"
    shutil.copy(tmp_path / "runs" / "by_hash" / trials[3].pretrain_hash / "result.json", swapped)
    built = build_report(tmp_path, ["depths"])
    assert len(built.warnings) == 3
    for trial, warning in zip(trials, built.warnings, strict=False):
        assert trial.label in warning and f"runs/by_hash/{trial.pretrain_hash}/result.json" in warning
        assert str(tmp_path) not in warning
    assert "is the result of another run" in built.warnings[2]
    row = next(row for row in comparison(tmp_path).rows if row.arm.label == "depth=1")
    assert row.counted == {} and row.problems == ["3 of 3 unreadable"]


def test_a_half_done_study_lists_what_is_missing(reported: Path, tmp_path: Path) -> None:
    rows = {row["arm"]: row for row in table(reported / "studies" / "ratios" / "report", "ratios_accuracy_held_out")}
    assert rows["ratio=0.4"]["state"] == "1 of 2 not run yet" and rows["ratio=0.4"]["n"] == "1"
    assert rows["ratio=0.4"]["linear_top1_interval"] == "wilson"
    assert rows["ratio=0.4"]["linear_top1_verdict"] == "one seed in common: no verdict"
    text = (reported / "studies" / "ratios" / "report" / "report.md").read_text(encoding="utf-8")
    assert "Not run yet: ratio=0.4 at 1 of 2 seeds" in text and "50.00†" in text
    trials = write_study(tmp_path, DEPTHS, lambda arm, seed: None)
    write_run(tmp_path, trials[0], None)
    words = " ".join(dict(build_report(tmp_path, []).sentences)["depths"])
    assert "0 of 12 trials finished" in words and "Begun and not finished: depth=1 at 1 of 3 seeds" in words
    folder = tmp_path / "studies" / "depths" / "report"
    assert [p.stem for p in (folder / "tables").glob("*.csv")] == ["depths_runs"]
    assert "no accuracies" in (folder / "report.md").read_text(encoding="utf-8")


def test_a_trial_of_other_probe_settings_is_not_counted_and_said_to_need_probing(tmp_path: Path) -> None:
    trials = write_study(tmp_path, DEPTHS, outcome)
    write_run(tmp_path, trials[0], result_of(trials[0], 60.0, 50.0, probe_hash="other"))
    row = next(row for row in comparison(tmp_path).rows if row.arm.label == "depth=1")
    assert list(row.counted) == [1, 2]
    words = " ".join(dict(build_report(tmp_path, ["depths"]).sentences)["depths"])
    assert "To be probed again: depth=1 at 1 of 3 seeds" in words


def test_different_images_and_protocols_never_share_a_table(tmp_path: Path) -> None:
    study = Study(
        name="sizes", preset="smoke", axes={"data.image_size": (32, 64), "predictor.depth": (1, 2)}, seeds=(0, 1, 2)
    )
    from studies import planned

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


def test_a_second_call_writes_the_same_bytes(reported: Path) -> None:
    before = {name: files(reported / name) for name in ("report", "studies/depths/report", "studies/ratios/report")}
    again = subprocess.run(  # a new process: nothing may depend on the order of a set or on what was drawn before
        [sys.executable, "-m", "cnnjepa", "report", "--root", str(reported)], capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr
    for name, contents in before.items():
        now = files(reported / name)
        assert now.keys() == contents.keys()
        assert [path for path in now if now[path] != contents[path]] == []


def test_all_formats_are_written_and_name_no_machine(reported: Path) -> None:
    folder = reported / "studies" / "depths" / "report"
    written = files(folder)
    for name in ("depths_accuracy_held_out", "depths_accuracy_published", "depths_cost", "depths_runs"):
        assert {f"tables/{name}.{ending}" for ending in ("md", "csv", "tex", "html")} <= written.keys()
    for name in (
        "depths_arms_held_out", "depths_along_depth_published", "depths_cost_accuracy", "depths_curves", "depths_masks"
    ):  # fmt: skip
        assert written[f"figures/{name}.svg"].startswith(b"<?xml") and written[f"figures/{name}.png"][1:4] == b"PNG"
    assert {"report.html", "report.md", "report.tex"} <= written.keys()
    for name, content in files(reported / "report").items() | written.items():
        assert str(reported).encode() not in content, name


def test_the_report_over_all_has_the_main_table_and_the_published_one(reported: Path) -> None:
    rows = table(reported / "report", "main_synthetic-32_published")
    assert [(row["method"], row["study"], row["n"]) for row in rows] == [
        ("cnnjepa", "depths, depth=2", "3"), ("cnnjepa", "ratios, ratio=0.6", "2"),
    ]  # fmt: skip
    published = {(r["method"], r["encoder"]): r for r in table(reported / "report", "published_in100")}
    assert published["byol", "resnet50"]["linear_top1"] == "79.02"
    assert len(table(reported / "report", "published_in1k")) == 4


def test_what_an_earlier_report_wrote_goes_and_nothing_else_does(tmp_path: Path) -> None:
    write_study(tmp_path, DEPTHS, outcome)
    build_report(tmp_path, ["depths"])
    folder = tmp_path / "studies" / "depths" / "report"
    (folder / "figures" / "mine.png").write_bytes(b"a person's own")
    shutil.rmtree(tmp_path / "runs")
    build_report(tmp_path, ["depths"])
    assert not (folder / "tables" / "depths_accuracy_held_out.csv").exists()
    assert (folder / "figures" / "mine.png").read_bytes() == b"a person's own"


def test_the_gallery_of_photographs_stays_out_of_the_page(tmp_path: Path) -> None:
    """A real, tiny run on a folder of images; and what is said when the images are gone."""
    import torchvision

    from cnnjepa.ablations.data_facts import Resolver
    from cnnjepa.ablations.plan import plan, requested_trials
    from cnnjepa.ablations.pool import Pool
    from cnnjepa.data.synthetic import render
    from cnnjepa.training.pretrain import pretrain

    for split in ("train", "val"):
        pixels, labels = render(split, 48, 32)[:2]
        for place, (image, label) in enumerate(zip(pixels, labels.tolist(), strict=True)):
            path = tmp_path / "images" / split / f"class{label % 4}" / f"{place}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            torchvision.io.write_png(image, str(path))
    settings = {
        "data.source": "folder", "data.path": str(tmp_path / "images"), "data.image_size": 32, "train_images": None,
        "val_images": None, "runtime.batch_size": 16, "linear_epochs": 2, "held_out_ks": [5], "linear_batch_size": 16,
    }  # fmt: skip
    study = Study(name="photos", preset="smoke", axes={"predictor.depth": (1,)}, set=settings)
    trials = plan(requested_trials(study), Resolver("cpu", 1))
    write_study(tmp_path, study, lambda arm, seed: None, trials)
    pretrain(trials[0].config, Pool(tmp_path).folder(trials[0].pretrain_hash).path, resume=True)
    build_report(tmp_path, ["photos"], run=trials[0].pretrain_hash[:8])
    folder = tmp_path / "studies" / "photos" / "report"
    assert (folder / "gallery" / "photos_neighbours.png").is_file()
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "may forbid passing them on" in page and "Nearest validation images" not in page
    assert "photos_features" in {p.stem for p in (folder / "figures").iterdir()}
    shutil.rmtree(tmp_path / "images")
    build_report(tmp_path, ["photos"])
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "No map of features and no gallery of depth=1, seed 0" in text
    assert not (folder / "gallery" / "photos_neighbours.png").exists()


def test_one_damaged_study_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    trials = write_study(tmp_path, DEPTHS, outcome)
    for name, content in (("torn", "name: [tor"), ("empty", "")):
        (tmp_path / "studies" / name).mkdir()
        (tmp_path / "studies" / name / "study.yaml").write_text(content)
    built = build_report(tmp_path, [])
    assert [path.parent.parent.name for path in built.pages[:-1]] == ["depths"]
    assert [warning.split(" is left out")[0] for warning in built.warnings] == ["study empty", "study torn"]
    with pytest.raises(ConfigError, match=r"torn/study\.yaml cannot be read"):
        build_report(tmp_path, ["torn"])
    # Nor does one odd log: JSON, but not what training writes.
    run = write_run(tmp_path, trials[0], None)
    (run / "result.json").unlink()
    (run / "metrics.jsonl").write_text("{}\n")
    words = " ".join(dict(build_report(tmp_path, ["depths"]).sentences)["depths"])
    assert "Begun and not finished: depth=1 at 1 of 3 seeds" in words


def test_a_large_study_costs_no_more_pictures_than_a_small_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time is in pictures; benchmarks/report.py measures it."""
    from matplotlib.figure import Figure

    saved: list[str] = []
    save = Figure.savefig

    def counted(figure: Figure, *arguments: Any, **more: Any) -> None:
        saved.append(more["format"])
        save(figure, *arguments, **more)

    monkeypatch.setattr(Figure, "savefig", counted)
    counts = []
    for arms in (4, 32):
        saved.clear()
        rates = tuple(round(0.001 * (n + 1), 3) for n in range(arms))
        study = Study(name=f"rates{arms}", preset="smoke", axes={"optimizer.lr": rates}, seeds=(0, 1))
        write_study(tmp_path, study, lambda arm, seed: (50.0 + seed, 40.0))
        build_report(tmp_path, [study.name])
        counts.append(len(saved))
    assert counts[0] == counts[1] <= 20


def test_damaged_logs_leave_gaps_and_are_said(tmp_path: Path) -> None:
    trials = write_study(tmp_path, DEPTHS, outcome)
    log = tmp_path / "runs" / "by_hash" / trials[0].pretrain_hash / "metrics.jsonl"
    log.write_text(log.read_text() + '{"kind": "train", "epoch": 3, "loss": NaN}\n{"kind": "tr')
    (tmp_path / "runs" / "by_hash" / trials[1].pretrain_hash / "metrics.jsonl").unlink()
    build_report(tmp_path, ["depths"])
    text = (tmp_path / "studies/depths/report/report.md").read_text(encoding="utf-8")
    assert "1 line of metrics.jsonl cannot be read" in text and "metrics.jsonl is missing" in text


def test_a_speed_benchmark_with_several_shares_is_drawn(tmp_path: Path) -> None:
    write_study(tmp_path, DEPTHS, outcome)
    out = tmp_path / "benchmarks" / "out"
    out.mkdir(parents=True)
    rows = [{"visible": v, "dense_s": 2.0, "packed_s": 0.3 + 2 * v, "masked_s": 2.2} for v in (0.25, 0.5, 1.0)]
    (out / "speed.json").write_text(json.dumps({"kind": "visible_share", "rows": rows}))
    (out / "single.json").write_text(json.dumps({"kind": "visible_share", "rows": rows[:1]}))
    (out / "other.json").write_text(json.dumps({"rows": []}))
    (out / "torn.json").write_text("{")
    (out / "wrong.json").write_text(json.dumps({"kind": "visible_share", "rows": [{"visible": 7}]}))
    built = build_report(tmp_path, [])
    assert [p.stem for p in (tmp_path / "report" / "figures").glob("speed*.svg")] == ["speed_speed"]
    assert len(built.warnings) == 2 and "torn.json" in built.warnings[0] and "wrong.json" in built.warnings[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "`cnnjepa ablate predictor --depths 1,2,3,4 --root "),
        (["nothing"], "holds no study"),
    ],
)
def test_no_study_is_one_message_and_exit_code_2(
    tmp_path: Path,
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["cnnjepa", "report", *words, "--root", str(tmp_path)])
    with pytest.raises(SystemExit) as left:
        main()
    message = capsys.readouterr().err
    assert left.value.code == 2
    assert said in message and len(message.strip().splitlines()) == 1


def test_wrong_input_is_refused_with_what_is_legal(tmp_path: Path) -> None:
    trials = write_study(tmp_path, DEPTHS, outcome)
    with pytest.raises(ConfigError, match=r"--run zzz: no finished trial begins so; finished trials are \w{12}, "):
        build_report(tmp_path, [], run="zzz")
    with pytest.raises(ConfigError, match="12 finished trials begin so"):
        build_report(tmp_path, [], run="")
    with pytest.raises(ConfigError, match="nearest is 'depths'"):
        build_report(tmp_path, ["dephts"])
    (tmp_path / "a_file").touch()
    with pytest.raises(ConfigError, match="a_file is a file; a report needs a folder"):
        build_report(tmp_path, ["depths"], out=tmp_path / "a_file")
    (tmp_path / "studies" / "depths" / "trials.json").write_text("[]")
    with pytest.raises(ConfigError, match="lists no trials"):
        build_report(tmp_path, ["depths"])
    assert trials


def test_out_takes_the_report_elsewhere(tmp_path: Path) -> None:
    write_study(tmp_path, DEPTHS, outcome)
    built = build_report(tmp_path, ["depths"], out=tmp_path / "elsewhere")
    assert built.pages == (tmp_path / "elsewhere" / "report.html",) and built.pages[0].is_file()
    assert not (tmp_path / "studies" / "depths" / "report").exists()
    row = table(tmp_path / "elsewhere", "depths_runs")[0]
    assert (tmp_path / "elsewhere" / row["folder"] / "result.json").is_file()


def test_the_latex_compiles(reported: Path, tmp_path: Path) -> None:
    compiler = shutil.which("pdflatex")
    if compiler is None:
        pytest.skip("pdflatex is not installed (Debian: texlive-latex-recommended)")
    for name in ("report", "studies/depths/report"):
        where = tmp_path / name
        shutil.copytree(reported / name, where)
        run = subprocess.run(
            [compiler, "-interaction=nonstopmode", "-halt-on-error", "report.tex"],
            cwd=where,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stdout[-1500:]
        assert "Undefined control" not in run.stdout and not re.search(r"Overfull \\hbox", run.stdout)
        assert (where / "report.pdf").stat().st_size > 20_000


def test_a_name_with_latex_s_letters_is_escaped(tmp_path: Path) -> None:
    from cnnjepa.ablations.report.escape import latex_text, markdown_text

    assert latex_text("50 % of $x_1 & {y}^2 \\ # ~") == (
        r"50 \% of \$x\_1 \& \{y\}\textasciicircum{}2 \textbackslash{} \# \textasciitilde{}"
    )
    assert latex_text("τ − ± 漢") == r"$\tau$ $-$ $\pm$ \textbackslash{}u6f22"
    assert markdown_text("a|b*c_d[e]") == r"a\|b\*c\_d\[e\]"


def test_what_is_kept_gives_the_same_tables_and_names_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here, kept = tmp_path / "here", tmp_path / "kept"
    photos = Study(
        name="photos", preset="tiny64", axes={"predictor.depth": (1, 2)}, seeds=(0, 1, 2),
        set={"data.path": str(here / "photos.tar")},
    )  # fmt: skip
    trials = planned(photos, lambda config: "photos")
    write_study(here, photos, lambda arm, seed: None if (arm, seed) == ("depth=2", 2) else (50.0 + seed, 40.0), trials)
    for trial in trials[:3]:
        run = Pool(here).folder(trial.pretrain_hash)
        result = result_of(trial, 50.0 + trial.seed, 40.0, software={"host": "lab-7", "commit": "0123"})
        run.write_result(result)
        (run.path / "checkpoints").mkdir()
        (run.path / "checkpoints" / "last.pt").write_bytes(b"weights")
    (here / "benchmarks").mkdir()
    (here / "benchmarks" / "method_cost.json").write_text("{}")
    monkeypatch.setattr("sys.argv", ["cnnjepa", "archive", "photos", "--to", str(kept), "--root", str(here)])
    with pytest.raises(SystemExit, match="0"):
        main()
    told = capsys.readouterr()
    assert "photos: 5 trials" in told.out and "1 without a result yet: depth=2, seed 2" in told.err
    measured = kept / "benchmarks" / "method_cost.json"
    assert "benchmarks/method_cost.json" in told.out and measured.read_text() == "{}"
    (here / "benchmarks" / "method_cost.json").write_text("[]")
    with pytest.raises(ConfigError, match="holds other measured steps"):
        archive_step_costs(here, kept)
    measured.unlink()
    for path, content in files(kept).items():
        assert str(tmp_path).encode() not in content and b"lab-7" not in content, path
        assert path.split("/")[-1] in {"study.yaml", "trials.jsonl"}
    build_report(here, ["photos"], tmp_path / "a")
    build_report(kept, ["photos"], tmp_path / "b")
    for one in ("accuracy_held_out", "accuracy_published", "cost"):
        first, second = ((tmp_path / side / "tables" / f"photos_{one}.csv").read_bytes() for side in "ab")
        assert first == second and b"depth=2" in first
    assert "the study was kept without weights" in (tmp_path / "b" / "report.md").read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match="is the root itself"):
        archive_study(here, "photos", here)
    with pytest.raises(ConfigError, match="there are photos"):
        archive_study(here, "phtos", kept)


def test_a_run_that_trains_nothing_is_not_said_to_fail_at_it(tmp_path: Path) -> None:
    study = Study(name="seen", preset="smoke", axes={"predictor.depth": (1, 2)}, seeds=(0,))
    trials = write_study(tmp_path, study, lambda arm, seed: (3.0, 3.0))  # below the floors of `result_of`
    write_run(tmp_path, trials[0], result_of(trials[0], 3.0, 3.0, method="random_init"))
    built = build_report(tmp_path, ["seen"], tmp_path / "out")
    (said,) = [text for _, texts in built.sentences for text in texts if "linear" in text and "No higher than" in text]
    assert trials[1].arm.label in said and trials[0].arm.label not in said
