"""Options stand before or after a command's name."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cnnjepa.cli.app import app
from cnnjepa.cli.study_options import StudyOptions


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """(study's name, axes, seeds, whether a plan is wanted) of every study that a command line asks for."""
    seen: list[Any] = []

    def carry_out(study: Any, options: StudyOptions) -> None:
        seen.append((study.name, dict(study.axes), options.seeds, options.plan))

    monkeypatch.setattr("cnnjepa.cli.ablate.carry_out", carry_out)
    return seen


@pytest.mark.parametrize(
    "line",
    [
        "own.yaml --plan --seeds 0,1", "--plan own.yaml --seeds 0,1", "--plan --seeds 0,1 own.yaml",
        "--seeds 0,1 own.yaml --plan", "--seeds=0,1 --plan own.yaml", "--plan --seeds 0,1 file own.yaml",
        "file --plan own.yaml --seeds 0,1", "file own.yaml --seeds 0,1 --plan",
    ],
)  # fmt: skip
def test_a_study_file_stands_anywhere(line: str, asked: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("preset: smoke\naxes: {predictor.depth: [1, 2]}\n")
    done = CliRunner().invoke(app, ["ablate", *line.replace("own.yaml", str(path)).split()])
    assert done.exit_code == 0, done.output
    assert asked == [("own", {"predictor.depth": (1, 2)}, "0,1", True)]


@pytest.mark.parametrize(
    "line",
    ["predictor --plan --depths 1,2", "--plan predictor --depths 1,2", "--depths 1,2 --plan predictor",
     "--plan --depths=1,2 predictor", "predictor --depths 1,2 --plan"],
)  # fmt: skip
def test_a_named_study_stands_anywhere(line: str, asked: list[Any]) -> None:
    done = CliRunner().invoke(app, ["ablate", *line.split()])
    assert done.exit_code == 0, done.output
    assert asked == [("predictor-ablation", {"predictor.depth": (1, 2)}, None, True)]


def test_a_shipped_study_stands_anywhere(asked: list[Any]) -> None:
    assert CliRunner().invoke(app, ["ablate", "--plan", "loss"]).exit_code == 0
    assert [name for name, *_ in asked] == ["loss"]


def test_commands_of_other_groups_stand_anywhere() -> None:
    before, after = (
        CliRunner().invoke(app, ["config", *line.split()])
        for line in ("--preset smoke --set epochs=3 show", "show --preset smoke --set epochs=3")
    )
    assert before.exit_code == 0 and "epochs: 3" in before.output and before.output == after.output


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (["ablate", "--plan"], "--plan belongs to a command, and none is given; commands are"),
        (["ablate", "--seeds", "0"], "--seeds belongs to a command, and none is given"),
        (["ablate", "--plann", "loss"], "No such option: --plann"),
        (["ablate", "loss", "--depths", "1"], "No such option: --depths"),
        (["config", "--preset", "smoke", "shaw"], "No such command 'shaw'"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(line: list[str], says: str) -> None:
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, line)
    assert done.exit_code == 2 and says in done.output


@pytest.mark.parametrize("group", ["ablate", "config", "data"])
def test_help_of_a_group_is_its_own(group: str) -> None:
    done = CliRunner().invoke(app, [group, "--help"])
    assert done.exit_code == 0 and "Commands" in done.output
