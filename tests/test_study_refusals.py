"""Studies that are refused, each with the field and the possible values."""

from pathlib import Path
from typing import Any

import pytest
from study_plans import KnownImages, study, trials_of

from cnnjepa.ablations.plan import plan, requested_trials
from cnnjepa.ablations.resources import Capacity, Resources, resources_per_trial
from cnnjepa.ablations.study_files import read_study
from cnnjepa.schemas import ConfigError


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"predictor.dept": [1]}, "axis predictor.dept: there is no such config field; nearest is 'predictor.depth'"),
        ({"predictor.depth": []}, "axis 'predictor.depth' is empty"),
        ({"predictor.depth": 3}, "axis 'predictor.depth' is 3; give a list of values"),
        ({"predictor.depth": [1, 2, 1]}, "axis 'predictor.depth' has 1 twice"),
        ({"predictor.depth": [0]}, r"arm depth=0: method.predictor.depth: 0 is not valid"),
        ({"kernel_size": [3, 4]}, "arm kernel_size=4: .* must be odd"),
        ({"loss": {"l2": {"loss.nam": "l2"}}}, "axis loss, arm l2: loss.nam: there is no such config field"),
        ({"loss": {"l2": "yes"}}, "axis 'loss', arm 'l2': give its changes as config path: value"),
        ({"name": ["adamw"]}, "axis name: ambiguous; it could be"),
        ({"runtime.seed": [1, 2]}, "axis runtime.seed: seeds are repetitions, not settings"),
        ({"predictor.depth": [1], "method.predictor.depth": [2]}, "axis predictor.depth and .* are one field"),
        ({"loss": {"a": {"loss.name": "l2", "method.loss.name": "cosine"}}}, "axis loss, arm a: loss.name and .* are"),
        ({"arm": {"a": {"runtime.seed": 1}}}, "axis arm, arm a: runtime.seed: seeds are repetitions"),
        ({"predictor.depth": [1], "arm": {"x": {"predictor.depth": 2}}}, "is set by another axis too"),
        ({}, "axes"),
    ],
)  # fmt: skip
def test_a_wrong_axis_is_named(axes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        trials_of(study(axes=axes))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seeds": [0, 0]}, "seeds: must be distinct"),
        ({"name": "a/b"}, "name: 'a/b' is not valid"),
        ({"presett": "smoke"}, "presett: no such field; must be one of .*nearest is 'preset'"),
        ({"published": "depth"}, "published: 'depth' is not valid; must be one of"),
        ({"preset": "smok"}, "preset 'smok' does not exist; .*nearest is 'smoke'"),
        ({"baseline": {"predictor.depth": 9}}, "baseline: axis 'predictor.depth' has no 9; must be one of 1, 2"),
        ({"baseline": {"kernel": 9}}, "baseline names axis 'kernel'; the axes are predictor.depth"),
        ({"seeds": ["a", "b"]}, "^test: seeds.0: 'a' is text; write a whole number\nseeds.1: 'b' is text; [^\n]*$"),
        ({"set": {"runtime.seed": 7}}, "set: runtime.seed: seeds are repetitions"),
        ({"set": {"threads": 7}}, "set: runtime.threads: every process has as many threads as CPUs"),
        ({"set": {"depht": 1}}, "set: depht: there is no such config field; nearest is 'depth'"),
    ],
)
def test_a_wrong_field_of_a_study_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        trials_of(study(**{"axes": {"predictor.depth": [1, 2]}, **fields}))


def test_a_study_file_that_is_not_one_is_refused(tmp_path: Path) -> None:
    for name, text, message in (
        ("a.yaml", "- 1", "must hold fields"),
        ("b.yaml", "axes: [", "is not valid YAML"),
        ("c.yaml", "axes: {predictor.depth: }", "axis 'predictor.depth' is None"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_study(str(tmp_path / name))
    with pytest.raises(ConfigError, match=r"study 'predictor_dept' does not exist; .*nearest is 'predictor_depth'"):
        read_study("predictor_dept")


def test_a_trial_that_fits_no_machine_is_refused_at_once() -> None:
    cluster = Capacity([(16.0, 4.0), (16.0, 4.0), (8.0, 0.0)])
    assert cluster.trials(Resources(4, 1, 1)) == 8
    assert cluster.trials(Resources(4, 0.5, 1)) == 8  # sixteen by GPUs, eight by CPUs
    assert cluster.trials(Resources(2, 8, 8)) == 1
    for resources in (Resources(1, 5, 1), Resources(17, 0, 1), Resources(1, 9, 9), Resources(4, 20, 20)):
        with pytest.raises(ConfigError, match=r"more than there is .*lower --gpus-per-trial"):
            cluster.trials(resources)


@pytest.mark.parametrize("resources", [Resources(1, 1.5, 1), Resources(1, 3, 2)])
def test_a_broken_number_of_gpus_above_one_is_refused(resources: Resources) -> None:
    with pytest.raises(ConfigError, match=r"is 1.5 per process, which must be a whole number or a fraction below 1"):
        Capacity([(8.0, 8.0)]).trials(resources)


def test_what_a_trial_takes_by_default() -> None:
    gpus = Capacity([(32.0, 4.0)])
    assert resources_per_trial(gpus, 1, None, None, on_cpu=False, side_by_side=True) == Resources(8, 1.0, 1)
    assert resources_per_trial(gpus, 4, None, None, on_cpu=False, side_by_side=True) == Resources(8, 4.0, 4)
    assert resources_per_trial(gpus, 1, 0.5, None, on_cpu=False, side_by_side=True) == Resources(4, 0.5, 1)
    assert resources_per_trial(gpus, 1, None, None, on_cpu=True, side_by_side=True) == Resources(1, 0.0, 1)
    laptop = Capacity([(2.0, 0.0)])
    assert resources_per_trial(laptop, 1, None, None, on_cpu=False, side_by_side=True) == Resources(1, 0.0, 1)
    assert resources_per_trial(laptop, 1, None, None, on_cpu=False, side_by_side=False) == Resources(2, 0.0, 1)
    assert resources_per_trial(laptop, 2, None, None, on_cpu=False, side_by_side=False) == Resources(1, 0.0, 2)


def test_a_config_that_wants_a_gpu_is_refused_where_trials_get_none() -> None:
    with pytest.raises(ConfigError, match=r"arm depth=1: runtime.device=cuda: trials get no GPU here"):
        trials_of(study(set={"runtime.device": "cuda"}, axes={"predictor.depth": [1]}))


def test_fewer_images_than_a_global_batch_are_refused() -> None:
    with pytest.raises(ConfigError, match="6000 training images are fewer than a global batch of 8192"):
        asked = study(set={"runtime.batch_size": 4096}, axes={"predictor.depth": [1]})
        plan(requested_trials(asked), KnownImages("cpu", 2))
