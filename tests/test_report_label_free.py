"""Agreement of figures that need no labels with the probes, in statistics, tables and sentences."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reports import table
from scipy import stats
from studies import planned, result_of, write_run, write_study

from cnnjepa.ablations.report.build import build_report
from cnnjepa.ablations.report.label_free import clustered_tau, label_free_agreements, reading
from cnnjepa.ablations.report.reading import StudyData, read_study
from cnnjepa.ablations.report.tables.agreement_table import agreement_sentences
from cnnjepa.ablations.study_folder import StudyFolder
from cnnjepa.schemas import Diagnostics
from cnnjepa.schemas.study import Study

pytestmark = pytest.mark.medium

LRS = (0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.007, 0.008, 0.009, 0.01)


def health(accuracy: float, **more: Any) -> Diagnostics:
    """LiDAR orders as the accuracy, the loss in reverse, α is nearest to 1 at the best, RankMe is unrelated."""
    values: dict[str, Any] = {
        "rankme": 5 + (7 * accuracy) % 5, "feature_std": 0.4, "feature_dim": 32, "lidar": accuracy / 10,
        "alpha_req": 1 + (50 - accuracy) / 100, "heldout_loss": accuracy / 100,
    }  # fmt: skip
    return Diagnostics(**{**values, **more})


def studied(root: Path, lrs: tuple[float, ...] = LRS, seeds: tuple[int, ...] = (0,), without: int = 0) -> StudyData:
    """A study of these arms; the first `without` trials come from an earlier version."""
    study = Study(name="s", preset="smoke", axes={"optimizer.lr": lrs}, seeds=seeds)
    trials = planned(study)
    write_study(root, study, lambda arm, seed: None, trials)
    for number, trial in enumerate(trials):
        accuracy = 30.0 + number
        more = {"lidar": None, "alpha_req": None, "heldout_loss": None} if number < without else {}
        write_run(root, trial, result_of(trial, accuracy, accuracy - 5, diagnostics=health(accuracy, **more)))
    return read_study(StudyFolder(root, "s"))


def test_tau_is_scipys_and_its_interval_that_of_resampled_arms() -> None:
    random = np.random.default_rng(3)
    x = random.normal(size=24).round(1)
    y = (x + random.normal(size=24)).round(1)
    pairs = list(zip(x.tolist(), y.tolist(), strict=True))
    assert len(set(x)) < 24  # ties
    by_arm = [pairs[i : i + 2] for i in range(0, 24, 2)]
    tau, low, high = clustered_tau(by_arm)
    assert tau == pytest.approx(float(stats.kendalltau(x, y).statistic), abs=1e-12)
    drawn = np.random.default_rng(20_240_814).integers(12, size=(2000, 12))
    taus = [
        stats.kendalltau(*np.array([pair for place in places for pair in by_arm[place]]).T).statistic
        for places in drawn[:300]
    ]
    # The first 300 of the same draws, by scipy, estimate the same percentiles less exactly.
    assert low is not None and high is not None and low < tau < high
    assert np.quantile(taus, [0.025, 0.975]) == pytest.approx([low, high], abs=0.06)
    assert clustered_tau(by_arm) == (tau, low, high)


def test_few_arms_have_no_interval_and_equal_values_no_tau() -> None:
    assert clustered_tau([[(float(i), float(i))] for i in range(7)]) == (1, None, None)
    assert clustered_tau([[(1.0, float(i))] for i in range(9)]) == (None, None, None)
    assert clustered_tau([[(float(i), float(i))] for i in range(8)]) == (1, 1, 1)


def test_figures_are_read_in_their_direction(tmp_path: Path) -> None:
    found = label_free_agreements(study := studied(tmp_path), study.datasets[0])
    tau = {(one.figure.key, one.metric): one.tau for one in found}
    for metric in ("linear_top1", "knn_top1"):
        assert tau["lidar", metric] == tau["alpha_req", metric] == 1 and tau["heldout_loss", metric] == -1  # type: ignore[index]
        assert tau["feature_std", metric] is None  # type: ignore[index]
    said = {one.figure.key: reading(one) for one in found if one.metric == "linear_top1"}
    assert said == {
        "rankme": "not shown", "lidar": "trusted", "alpha_req": "trusted", "feature_std": "all equal",
        "heldout_loss": "reversed",
    }  # fmt: skip
    (linear, knn) = agreement_sentences(found, "synthetic-32")
    assert linear == (
        "Figures without labels in the place of linear top-1 on synthetic-32, 10 trials. Can be trusted to order these "
        "trials: LiDAR (τ = +1.00 [+1.00, +1.00]), α-ReQ (τ = +1.00 [+1.00, +1.00]). Cannot be trusted here, because "
        f"no agreement is shown: {_of(found, 'rankme')}. Cannot be trusted here, because the order is reversed: "
        "held-out loss (τ = −1.00 [−1.00, −1.00])."
    )
    assert "in the place of k-NN top-1" in knn


def _of(found: list[Any], key: str) -> str:
    from cnnjepa.ablations.report.phrases import interval, signed

    one = next(one for one in found if one.figure.key == key)
    return f"{one.figure.label} (τ = {signed(one.tau)} {interval(one.low, one.high, True)})"


def test_trials_without_the_newer_figures_are_left_out_and_counted(tmp_path: Path) -> None:
    study = studied(tmp_path, without=2)
    counts = {
        one.figure.key: (one.trials, one.arms, one.left_out)
        for one in label_free_agreements(study, study.datasets[0])
        if one.metric == "knn_top1"
    }
    assert counts["rankme"] == (10, 10, 0) and counts["lidar"] == counts["heldout_loss"] == (8, 8, 2)
    build_report(tmp_path, ["s"])
    rows = {row["figure"]: row for row in table(tmp_path / "studies" / "s" / "report", "s_label_free")}
    assert (rows["LiDAR"]["trials"], rows["LiDAR"]["left_out"], rows["LiDAR"]["linear_top1_tau"]) == ("8", "2", "1.0")
    assert rows["LiDAR"]["linear_top1_reading"] == "can be trusted here"
    assert rows["held-out loss"]["better"] == "low" and rows["α-ReQ"]["better"] == "near 1"
    page = (tmp_path / "studies" / "s" / "report" / "report.html").read_text(encoding="utf-8")
    assert "Figures without labels in the place of linear top-1" in page
    arms = table(tmp_path / "studies" / "s" / "report", "s_diagnostics")
    assert arms[0]["lidar"] == "" and float(arms[-1]["lidar"]) == pytest.approx(3.9)
    assert float(arms[-1]["heldout_loss"]) == pytest.approx(0.39)
    runs = table(tmp_path / "studies" / "s" / "report", "s_runs")
    assert [row["lidar"] for row in runs][:3] == ["", "", "3.2"] and float(runs[-1]["alpha_req"]) == pytest.approx(1.11)


def test_seeds_of_an_arm_are_drawn_together(tmp_path: Path) -> None:
    study = studied(tmp_path, LRS[:8], seeds=(0, 1))
    lidar = next(one for one in label_free_agreements(study, study.datasets[0]) if one.figure.key == "lidar")
    assert (lidar.trials, lidar.arms, lidar.tau) == (16, 8, 1)


def test_a_study_of_few_arms_or_of_earlier_versions_has_no_such_table(tmp_path: Path) -> None:
    few = studied(tmp_path / "few", LRS[:3])
    assert label_free_agreements(few, few.datasets[0]) == []
    five = studied(tmp_path / "five", LRS[:5])
    assert {reading(one) for one in label_free_agreements(five, five.datasets[0])} == {"too few arms", "all equal"}
    old = studied(tmp_path / "old", without=10)
    found = label_free_agreements(old, old.datasets[0])
    assert {one.figure.key for one in found} == {"rankme", "feature_std"}
    build_report(tmp_path / "old", ["s"])
    assert not list((tmp_path / "old").rglob("s_diagnostics.csv"))
    assert "lidar" not in table(tmp_path / "old" / "studies" / "s" / "report", "s_runs")[0]
