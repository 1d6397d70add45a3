"""From a study to its trials: every arm's config is loaded once, whatever is then done with it."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cnnjepa.ablations import plan
from cnnjepa.ablations.study_files import validated
from cnnjepa.cli.app import app
from cnnjepa.schemas import load_config


@pytest.mark.medium
def test_a_plan_loads_every_arm_once_and_the_base_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []

    def counting(*given: Any, **named: Any) -> Any:
        loaded.append(named["changes"])
        return load_config(*given, **named)

    monkeypatch.setattr(plan, "load_config", counting)
    flags = ["--depths", "1,2,3", "--seeds", "0,1", "--preset", "smoke", "--images-per-s", "100", "--plan"]
    done = CliRunner().invoke(app, ["ablate", "predictor", *flags, "--root", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "6 trials" in done.stdout
    assert [changes.get("method.predictor.depth") for changes in loaded] == [1, 2, 3, None]


def test_trials_of_one_arm_differ_only_in_their_seed() -> None:
    study = validated({"name": "s", "preset": "smoke", "axes": {"predictor.depth": [1, 2]}, "seeds": [3, 0]}, "test")
    requested = plan.requested_trials(study)
    assert [(trial.arm.label, trial.seed) for trial in requested] == [
        ("depth=1", 3), ("depth=1", 0), ("depth=2", 3), ("depth=2", 0),
    ]  # fmt: skip
    for trial in requested:
        assert trial.config == load_config("smoke", changes={**trial.arm.changes, "runtime.seed": trial.seed})
