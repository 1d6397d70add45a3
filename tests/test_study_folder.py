"""A study's folder: what is written reads back, and a changed study is refused."""

import json
from pathlib import Path

import pytest
import yaml
from study_plans import KnownImages, baseline_of, study, trials_of, written

from cnnjepa.ablations.data_facts import DataFacts
from cnnjepa.ablations.plan import plan, requested_trials
from cnnjepa.ablations.study_files import changed, read_study
from cnnjepa.ablations.study_folder import StudyFolder, records_of
from cnnjepa.schemas import ConfigError, PretrainConfig


def test_a_study_reads_back_as_written(tmp_path: Path) -> None:
    asked = study(axes={"predictor.depth": [1, 2], "masking.scale": [[0.15, 0.2]]}, seeds=[0, 1])
    folder, records = written(tmp_path, asked)
    assert folder.study() == asked and folder.trials() == records
    assert [r.baseline for r in records] == [r.arm.startswith("depth=2") for r in records]


def test_a_changed_study_is_refused_and_what_differs_is_shown(tmp_path: Path) -> None:
    folder, _ = written(tmp_path, study(axes={"predictor.depth": [1, 2]}))
    before = (folder.path / "trials.json").read_bytes()
    for other, message in (
        (study(axes={"predictor.depth": [1, 3]}), r"axis predictor.depth: there \[1, 2\], requested \[1, 3\]"),
        (
            study(axes={"predictor.depth": [1, 2]}, set={"optimizer.lr": 0.1}),
            r"set.optimizer.lr: there \(none\)",
        ),
        (
            study(axes={"predictor.depth": [1, 2]}, seeds=[0, 1]),
            r"(?s)seeds: there \[0\], requested \[0, 1\].*--extend",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            written(tmp_path, other)
    assert (folder.path / "trials.json").read_bytes() == before
    larger = study(axes={"predictor.depth": [1, 2, 3]}, seeds=[0, 1])
    folder.refuse_other_study(larger, records_of(trials_of(larger), "depth=2", 1), extend=True)
    with pytest.raises(ConfigError, match="holds another study"):
        smaller = study(axes={"predictor.depth": [1]})
        folder.refuse_other_study(smaller, records_of(trials_of(smaller), "depth=1", 1), extend=True)


def test_claims_stay_in_a_study_that_grows(tmp_path: Path) -> None:
    claim = {"says": "One is worse.", "arm": {"predictor.depth": 1}, "expect": "worse"}
    axes = {"predictor.depth": [1, 2, 3]}
    folder, _ = written(tmp_path, study(axes=axes, claims=[claim], baseline={"predictor.depth": 2}))
    for changes, legal in (
        ({}, True), ({"claims": [claim, {**claim, "says": "Another."}]}, False), ({"claims": []}, False),
        ({"claims": [{**claim, "expect": "better"}]}, False), ({"baseline": {"predictor.depth": 3}}, False),
    ):  # fmt: skip
        fields = {"claims": [claim], "baseline": {"predictor.depth": 2}, **changes}
        larger = study(axes=axes, seeds=[0, 1], **fields)
        asked = larger, records_of(trials_of(larger), "depth=2", 1), True
        if legal:
            folder.refuse_other_study(*asked)
        else:
            with pytest.raises(ConfigError, match="they and the baseline stay as they are"):
                folder.refuse_other_study(*asked)
    unclaimed, _ = written(tmp_path / "without", study(axes=axes))
    late = study(axes=axes, seeds=[0, 1], claims=[claim])
    with pytest.raises(ConfigError, match="claims cannot be added afterwards"):
        unclaimed.refuse_other_study(late, records_of(trials_of(late), "depth=2", 1), extend=True)


def test_a_claim_about_the_arm_that_becomes_the_baseline_is_refused() -> None:
    claim = {"says": "Two are worse.", "arm": {"predictor.depth": 2}, "expect": "worse"}
    with pytest.raises(ConfigError, match=r"claim 'Two are worse\.' is about the baseline"):
        baseline_of(study(axes={"predictor.depth": [1, 2]}, claims=[claim]))


def test_other_images_under_the_same_settings_are_another_study(tmp_path: Path) -> None:
    class OtherImages(KnownImages):
        def facts(self, config: PretrainConfig) -> DataFacts:
            return super().facts(config)._replace(fingerprint="e" * 64)

    asked = study(axes={"predictor.depth": [1]})
    folder, _ = written(tmp_path, asked)
    changed_images = records_of(plan(requested_trials(asked), OtherImages("cpu", 1)), "depth=1", 1)
    with pytest.raises(ConfigError, match=r"(?s)depth=1 seed 0: there .* now .*the images"):
        folder.refuse_other_study(asked, changed_images, extend=False)


def test_a_study_that_is_not_there_offers_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"holds no study; `cnnjepa ablate predictor --depths 1,2 --root .*` makes one"
    ):
        StudyFolder(tmp_path, "depth").study()
    written(tmp_path, study(name="depths", axes={"predictor.depth": [1]}))
    with pytest.raises(ConfigError, match="there are depths; nearest is 'depths'"):
        StudyFolder(tmp_path, "depth").study()


def test_seeds_and_set_replace_those_of_a_file() -> None:
    asked = changed(read_study("sampler"), {"seeds": [3, 4], "set": {"optimizer.lr": 0.1}})
    assert [(arm.label, seed) for arm, seed, _ in requested_trials(asked)] == [
        ("sampler=faithful", 3), ("sampler=faithful", 4), ("sampler=unbiased", 3), ("sampler=unbiased", 4)
    ]  # fmt: skip
    assert all(config.optimizer.lr == 0.1 for _, _, config in requested_trials(asked))


def test_a_study_is_yaml_that_people_can_read(tmp_path: Path) -> None:
    folder, _ = written(tmp_path, study(axes={"loss": {"l2": {"loss.name": "l2"}, "cosine": {"loss.name": "cosine"}}}))
    assert yaml.safe_load((folder.path / "study.yaml").read_text())["axes"]["loss"]["l2"] == {"loss.name": "l2"}
    assert json.loads((folder.path / "trials.json").read_text())[0]["arm"] == "l2"
