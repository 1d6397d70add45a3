"""A study's claims, judged by the rule that was written down with them."""

import re
from pathlib import Path
from typing import Any

import pytest
from reports import DEPTHS, comparison, outcome, table
from studies import write_study

from cnnjepa.ablations.report.build import build_report
from cnnjepa.ablations.study_files import validated
from cnnjepa.schemas import ConfigError
from cnnjepa.schemas.study import Study

pytestmark = pytest.mark.usefixtures("blank_pictures")

CLAIMED: list[dict[str, Any]] = [
    {"says": "One layer is worse.", "arm": {"predictor.depth": 1}, "expect": "worse"},
    {"says": "One layer is better.", "arm": {"predictor.depth": 1}, "expect": "better"},
    {"says": "Three are level.", "arm": {"predictor.depth": 3}, "expect": "level", "margin": 1.5},
    {"says": "One is level.", "arm": {"predictor.depth": 1}, "expect": "level", "margin": 1.5},
    {"says": "Four are worse.", "arm": {"predictor.depth": 4}, "expect": "worse"},
    {"says": "Four are not worse.", "arm": {"predictor.depth": 4}, "expect": "not_worse", "margin": 1.5},
]


@pytest.mark.medium
def test_claims_are_answered_by_the_rule_that_was_written_down(tmp_path: Path) -> None:
    study = Study(**{**DEPTHS.model_dump(), "claims": CLAIMED})
    write_study(tmp_path, study, outcome)
    words = dict(build_report(tmp_path, []).sentences)["depths"]
    rows = table(tmp_path / "report", "claims")
    assert [row["answer"] for row in rows if row["metric"] == "linear top-1"] == [
        "holds", "does not hold", "holds", "does not hold", "inconclusive", "inconclusive",
    ]  # fmt: skip
    assert rows == table(tmp_path / "studies" / "depths" / "report", "depths_claims")
    first = rows[0]
    assert first["published"] == str(64.86 - 73.22) and float(first["difference_mean"]) == pytest.approx(-10.0)
    assert float(first["difference_p_holm"]) < 0.01 and first["n"] == "3" and first["arm_baseline"] == "depth=2"
    # Four against two: seeds differ by 0.5, -0.1 and 4.1, and six tests share the level.
    assert float(rows[8]["resolved"]) == pytest.approx(8.02 * 2.27, rel=0.01)
    assert float(rows[10]["resolved"]) == pytest.approx(4.303 * 2.27 / 3**0.5, rel=0.01)
    assert words[0].startswith("Claim: “One layer is worse.” Protocol held_out: holds by linear top-1 (−10")
    first_line = next(
        x for x in (tmp_path / "report/tables/claims.md").read_text().splitlines() if "One layer is w" in x
    )
    assert "| −8.36 outside |" in first_line  # we found 10.0 below, within a quarter of a point
    assert (
        "the smallest detectable difference is" in words[4] and "half the interval is 5.64, the margin 1.5" in words[5]
    )


@pytest.mark.medium
def test_a_claim_without_common_seeds_is_not_tested(tmp_path: Path) -> None:
    study = Study(**{**DEPTHS.model_dump(), "claims": CLAIMED, "seeds": (0,)})
    write_study(tmp_path, study, outcome)
    build_report(tmp_path, [])
    assert {row["answer"] for row in table(tmp_path / "report", "claims")} == {"not tested"}


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


@pytest.mark.medium
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
