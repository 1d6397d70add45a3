"""A study whose statistics are known beforehand, its report, and what a report's files hold."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from studies import write_study

from cnnjepa.ablations.report.build import build_report
from cnnjepa.ablations.report.comparison import Comparison, compare
from cnnjepa.ablations.report.reading import read_study
from cnnjepa.ablations.study_folder import StudyFolder
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


BLANK = {
    "svg": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
    "png": bytes.fromhex(  # one transparent pixel
        "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
        "0000000b4944415478da636000020000050001e9fadcd80000000049454e44ae426082"
    ),
}


@pytest.fixture
def blank_pictures(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Figures are composed but not rendered, which is three quarters of a report's time; gives the formats written."""
    saved: list[str] = []

    def save(figure: Figure, file: io.BytesIO, format: str, **more: Any) -> None:
        saved.append(format)
        file.write(BLANK[format])

    monkeypatch.setattr(Figure, "draw_without_rendering", lambda figure: None)
    monkeypatch.setattr(Figure, "savefig", save)
    return saved


@pytest.fixture(scope="session")
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
