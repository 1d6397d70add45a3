"""Training curves of a report: with labels k-NN, without them the figures that need none."""

import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from reports import DEPTHS, outcome
from studies import write_study

from cnnjepa.ablations.report.figures.curves import draw_curves
from cnnjepa.ablations.report.reading import read_curves, read_study
from cnnjepa.ablations.study_folder import StudyFolder

UNLABELLED = {"rankme": 10.5, "lidar": 7.5, "alpha_req": 1.25, "heldout_loss": 0.75, "feature_std": 0.4}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures that were drawn."""
    found: list[Figure] = []
    monkeypatch.setattr(Figure, "draw_without_rendering", lambda figure: None)

    def save(figure: Figure, file: Any, format: str, **more: Any) -> None:
        found.append(figure)

    monkeypatch.setattr(Figure, "savefig", save)
    return found


def lines_of(run: Path, probe: dict[str, float]) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line if line["kind"] == "train" else {"kind": "probe", "epoch": line["epoch"], **probe} for line in lines]


@pytest.mark.parametrize(
    ("probe", "titles"),
    [
        ({"knn_top1": 12.5, **UNLABELLED}, ["loss", "k-NN top-1 on held-out training images, %", "RankMe"]),
        (UNLABELLED, ["loss", "loss on validation images", "RankMe", "LiDAR", "α-ReQ"]),
        ({"rankme": 10.5}, ["loss", "RankMe"]),
    ],
)
def test_curves_show_what_can_be_known(
    tmp_path: Path, drawn: list[Figure], probe: dict[str, float], titles: list[str]
) -> None:
    write_study(tmp_path, DEPTHS, outcome)
    study = read_study(StudyFolder(tmp_path, "depths"))
    read = {
        trial.record.key: read_curves(lines_of(trial.folder, probe), trial.record.probe_hash) for trial in study.trials
    }
    assert draw_curves(study, read, "curves") is not None
    shown = [axis for axis in drawn[0].axes if axis.axison]
    assert [axis.get_title() for axis in shown] == titles
    assert [len(axis.lines) for axis in shown] == [12] * len(titles)  # four arms, three seeds
    by_title = {axis.get_title(): axis.lines[0].get_ydata()[-1] for axis in shown}
    assert by_title["RankMe"] == 10.5
    if "LiDAR" in titles:
        assert (by_title["LiDAR"], by_title["α-ReQ"], by_title["loss on validation images"]) == (7.5, 1.25, 0.75)
